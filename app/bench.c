/* weir bench: reads the words, runs the load or the audit, prints what was measured. */
#include "bench.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "command.h"

#define KEY_BYTES_MIN  24u
#define KEY_BYTES_MAX  256u
#define PATH_BYTES_MAX 1024u

static const char usage[] =
    "weir bench --key KEY [options]\n"
    "  Posts events over keep-alive connections and prints rates and latencies.\n"
    "\n"
    "  --url URL          default http://127.0.0.1:3000\n"
    "  --connections N    default 64\n"
    "  --seconds S        default 10\n"
    "  --count N          requests in all, instead of a time\n"
    "  --rate R           open loop: R requests a second, latency from when each was due\n"
    "  --batch N          events a request (NDJSON); default 1\n"
    "  --event-bytes N    size of an event, about; default 160\n"
    "  --server-ids       send no dedup_id\n"
    "  --wrong-keys       a made-up secret in every request, never twice the same\n"
    "  --get PATH         GET this path instead\n"
    "  --path PATH        POST there instead\n"
    "  --users            100 users: 30 s ramp up, 60 s, 30 s down; p95 < 100 ms and < 1 % errors\n"
    "  --ids FILE         add every acknowledged id to FILE\n"
    "  --audit            prove that each id of --ids FILE is in the store exactly once\n"
    "  --seed N           of the dedup ids; default random\n"
    "  --json             one JSON line instead of text\n";

struct bench_words {
    struct bench_options options;
    const char *url;
    bool audit;
    bool users;
};

static bool number_read(const char *text, double minimum, double maximum, double *ret)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= minimum && value <= maximum)) {
        return false;
    }
    *ret = value;
    return true;
}

/* One option with a number; false when `word` is none of them. */
static bool number_option(struct bench_words *words, const char *word, const char *value,
                          bool *ret_good)
{
    struct bench_options *options = &words->options;
    double number = 0.0;
    struct {
        const char *name;
        double minimum;
        double maximum;
    } const rows[] = {
        {"--connections", 1, 100000}, {"--seconds", 0.01, 1e6}, {"--count", 1, 1e12},
        {"--rate", 0.001, 1e7},       {"--batch", 1, 1e6},      {"--event-bytes", 1, 200000},
        {"--seed", 1, 9e15},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(word, rows[i].name) != 0) {
            continue;
        }
        *ret_good = value != NULL && number_read(value, rows[i].minimum, rows[i].maximum, &number);
        switch (i) {
        case 0:
            options->connections = (uint32_t)number;
            break;
        case 1:
            options->duration_s = number;
            break;
        case 2:
            options->count = (uint64_t)number;
            break;
        case 3:
            options->rate = number;
            break;
        case 4:
            options->batch = (uint32_t)number;
            break;
        case 5:
            options->event_bytes = (uint32_t)number;
            break;
        default:
            options->seed = (uint64_t)number;
        }
        return true;
    }
    return false;
}

static bool text_option(struct bench_words *words, const char *word, const char *value,
                        bool *ret_good)
{
    struct bench_options *options = &words->options;
    const char **slot = NULL;
    if (strcmp(word, "--key") == 0) {
        slot = &options->key;
    } else if (strcmp(word, "--url") == 0) {
        slot = &words->url;
    } else if (strcmp(word, "--ids") == 0) {
        slot = &options->ids_file;
    } else if (strcmp(word, "--path") == 0 || strcmp(word, "--get") == 0) {
        slot = &options->path;
        options->get = strcmp(word, "--get") == 0;
    }
    if (slot == NULL) {
        return false;
    }
    *ret_good = value != NULL;
    *slot = value;
    return true;
}

static bool switch_option(struct bench_words *words, const char *word)
{
    if (strcmp(word, "--audit") == 0) {
        words->audit = true;
    } else if (strcmp(word, "--users") == 0) {
        words->users = true;
    } else if (strcmp(word, "--json") == 0) {
        words->options.json = true;
    } else if (strcmp(word, "--server-ids") == 0) {
        words->options.server_ids = true;
    } else if (strcmp(word, "--wrong-keys") == 0) {
        words->options.wrong_keys = true;
    } else {
        return false;
    }
    return true;
}

static bool words_read(struct bench_words *words, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool good = true;
        if (switch_option(words, argv[i])) {
            continue;
        }
        if (!number_option(words, argv[i], value, &good) &&
            !text_option(words, argv[i], value, &good)) {
            (void)command_fail("bench: unknown option %s (weir bench --help)", argv[i]);
            return false;
        }
        if (!good) {
            (void)command_fail("bench: %s: not a permitted value (weir bench --help)", argv[i]);
            return false;
        }
        i++;
    }
    return true;
}

static bool url_read(struct bench_options *options, const char *url)
{
    uint64_t port = 80;
    struct slice rest = slice_from_text(url);
    if (!slice_starts_with(rest, SLICE_LITERAL("http://"))) {
        return false;
    }
    struct slice after;
    struct slice place = slice_cut(slice_part(rest, 7, rest.size), '/', &after);
    struct slice port_text;
    struct slice host = slice_cut(place, ':', &port_text);
    if (port_text.data != NULL && (!slice_to_u64(port_text, &port) || port > 65535)) {
        return false;
    }
    if (host.size == 0 || host.size >= sizeof(options->host)) {
        return false;
    }
    if (slice_equal(host, SLICE_LITERAL("localhost"))) {
        host = SLICE_LITERAL("127.0.0.1");
    }
    memcpy(options->host, host.data, host.size);
    options->host[host.size] = '\0';
    options->port = (uint16_t)port;
    return true;
}

static void print_json(const struct bench_result *result)
{
    const struct bench_histogram *latency = &result->latency;
    (void)printf("{\"seconds\":%.3f,\"requests\":%" PRIu64 ",\"events\":%" PRIu64
                 ",\"errors\":%" PRIu64 ",\"broken\":%" PRIu64 ",\"late\":%" PRIu64
                 ",\"first_error_status\":%d,\"requests_per_s\":%.1f,\"events_per_s\":%.1f,"
                 "\"bytes_sent\":%" PRIu64 ",\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p95_ms\":%.4f,"
                 "\"p99_ms\":%.4f,\"p999_ms\":%.4f,\"max_ms\":%.4f}\n",
                 result->seconds, result->requests, result->events, result->errors, result->broken,
                 result->late, result->first_error_status,
                 (double)result->requests / result->seconds,
                 (double)result->events / result->seconds, result->bytes_sent,
                 bench_histogram_ms(latency, 0.5), bench_histogram_ms(latency, 0.9),
                 bench_histogram_ms(latency, 0.95), bench_histogram_ms(latency, 0.99),
                 bench_histogram_ms(latency, 0.999), bench_histogram_ms(latency, 1.0));
}

static void print_text(const struct bench_result *result)
{
    const struct bench_histogram *latency = &result->latency;
    (void)printf("acknowledged  %" PRIu64 " requests, %" PRIu64 " events in %.2f s\n"
                 "rate          %.0f requests/s, %.0f events/s\n"
                 "latency ms    p50 %.3f  p90 %.3f  p95 %.3f  p99 %.3f  p99.9 %.3f  max %.3f\n"
                 "errors        %" PRIu64 " answers",
                 result->requests, result->events, result->seconds,
                 (double)result->requests / result->seconds,
                 (double)result->events / result->seconds, bench_histogram_ms(latency, 0.5),
                 bench_histogram_ms(latency, 0.9), bench_histogram_ms(latency, 0.95),
                 bench_histogram_ms(latency, 0.99), bench_histogram_ms(latency, 0.999),
                 bench_histogram_ms(latency, 1.0), result->errors);
    if (result->first_error_status != 0) {
        (void)printf(" (the first was %d)", result->first_error_status);
    }
    (void)printf(", %" PRIu64 " broken connections, %" PRIu64 " never sent\n", result->broken,
                 result->late);
}

/* The thresholds of the shape that users know: 0 when both hold. */
static int users_verdict(const struct bench_result *result)
{
    double p95 = bench_histogram_ms(&result->latency, 0.95);
    uint64_t failed = result->errors + result->broken;
    uint64_t all = failed + result->requests;
    double share = all > 0 ? (double)failed / (double)all : 1.0;
    bool good = p95 < 100.0 && share < 0.01;
    (void)fprintf(stderr, "thresholds    p95 %.2f ms < 100: %s; errors %.3f %% < 1: %s\n", p95,
                  p95 < 100.0 ? "met" : "MISSED", share * 100.0, share < 0.01 ? "met" : "MISSED");
    return good ? 0 : 1;
}

static int load(struct bench_words *words)
{
    struct err_detail detail = {{0}};
    struct bench_result *result = mem_alloc(sizeof(*result));
    struct bench_options *options = &words->options;
    int status = 0;
    if (words->users) {
        options->connections = 100;
        options->ramp_up_s = 30.0;
        options->duration_s = 60.0;
        options->ramp_down_s = 30.0;
    }
    enum err err = bench_load(options, result, &detail);
    if (err != ERR_OK) {
        status = command_fail("bench: %s", detail.text);
    } else if (options->json) {
        print_json(result);
    } else {
        print_text(result);
    }
    if (err == ERR_OK) {
        status =
            words->users ? users_verdict(result) : (result->errors + result->broken == 0 ? 0 : 1);
    }
    mem_free(result);
    return status;
}

/* What the words must satisfy together. */
static bool words_check(const struct bench_words *words)
{
    if (words->options.key == NULL) {
        (void)command_fail("bench: --key KEY is missing (weir key create makes one)");
        return false;
    }
    if (words->audit && words->options.ids_file == NULL) {
        (void)command_fail("bench: --audit needs --ids FILE");
        return false;
    }
    if (words->options.wrong_keys && strlen(words->options.key) < KEY_BYTES_MIN) {
        (void)command_fail("bench: --wrong-keys needs a --key of the right form to begin with");
        return false;
    }
    if (strlen(words->options.key) > KEY_BYTES_MAX ||
        (words->options.path != NULL && strlen(words->options.path) > PATH_BYTES_MAX)) {
        (void)command_fail("bench: --key has at most %u bytes, a path %u", KEY_BYTES_MAX,
                           PATH_BYTES_MAX);
        return false;
    }
    return true;
}

int command_bench(int argc, char **argv)
{
    struct bench_words words = {
        .url = "http://127.0.0.1:3000",
        .options = {.connections = 64, .duration_s = 10.0, .batch = 1, .event_bytes = 160}};
    if (argc == 1 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        (void)fputs(usage, argc == 1 ? stderr : stdout);
        return argc == 1 ? 2 : 0;
    }
    if (hash_start() != ERR_OK || !words_read(&words, argc, argv)) {
        return 2;
    }
    if (!url_read(&words.options, words.url)) {
        (void)command_fail("bench: --url %s: must be http://ADDRESS:PORT", words.url);
        return 2;
    }
    if (!words_check(&words)) {
        return 2;
    }
    while (words.options.seed == 0) {
        hash_random(&words.options.seed, sizeof(words.options.seed));
    }
    return words.audit ? bench_audit(&words.options) : load(&words);
}
