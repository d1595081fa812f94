/* The histogram: bucket = 128 * power of two + the seven bits after the highest. */
#include "bench.h"

#define SUB_BITS  7u
#define SUB_COUNT (1u << SUB_BITS)

static uint32_t bucket_of(uint64_t value)
{
    if (value < SUB_COUNT) {
        return (uint32_t)value;
    }
    uint32_t power = 63u - (uint32_t)__builtin_clzll(value);
    uint32_t sub = (uint32_t)(value >> (power - SUB_BITS)) & (SUB_COUNT - 1u);
    return (power - SUB_BITS + 1u) * SUB_COUNT + sub;
}

/* The highest value that falls into a bucket. */
static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < SUB_COUNT) {
        return bucket;
    }
    uint32_t shift = bucket / SUB_COUNT - 1u;
    uint64_t base = (uint64_t)(SUB_COUNT + bucket % SUB_COUNT) << shift;
    return base + ((1ull << shift) - 1u);
}

void bench_histogram_add(struct bench_histogram *histogram, uint64_t nanoseconds)
{
    histogram->counts[bucket_of(nanoseconds)]++;
    histogram->total++;
    if (nanoseconds > histogram->maximum_ns) {
        histogram->maximum_ns = nanoseconds;
    }
}

double bench_histogram_ms(const struct bench_histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)((double)histogram->total * share);
    uint64_t seen = 0;
    if (histogram->total == 0 || share >= 1.0) {
        return (double)histogram->maximum_ns / 1e6;
    }
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > wanted) {
            uint64_t top = bucket_top(i);
            return (double)(top < histogram->maximum_ns ? top : histogram->maximum_ns) / 1e6;
        }
    }
    return (double)histogram->maximum_ns / 1e6;
}
