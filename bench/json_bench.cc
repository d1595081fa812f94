// Json bench: reading speed of src/json beside simdjson's DOM and jansson on the same bytes, in one
// run (TARGETS P5's yardstick), and the time to read and verify one small document (P22).
//
// The body is shaped as health exports are: metrics, each with points of qty, date and source,
// compact and pretty-printed. Each figure is the median of five runs; the readers take turns, so a
// disturbance meets all of them.
#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <simdjson.h>

extern "C" {
#include "json/json.h"
}

// jansson has kinds of the same names; what it includes is included before, outside the namespace.
namespace other
{
#include <jansson.h>
}

namespace
{

constexpr int runs = 5;
constexpr size_t body_megabytes = 64;

// xorshift64, so that every run reads the same bytes.
struct random_bits {
    uint64_t state = 0x9e3779b97f4a7c15u;
    uint64_t next()
    {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
};

void append_point(std::string &to, random_bits &random, uint64_t minute, bool pretty)
{
    char line[256];
    const char *gap = pretty ? "\n            " : "";
    const char *colon = pretty ? " : " : ":";
    uint64_t kind = random.next() % 4;
    double qty = kind == 0   ? double(random.next() % 2000)
                 : kind == 1 ? double(random.next() % 20000) / 100
                             : double(random.next() % 1000000007) / 9999991;
    std::snprintf(line, sizeof(line),
                  "{%s\"qty\"%s%.*g,%s\"date\"%s\"2024-%02u-%02u %02u:%02u:00 +0000\","
                  "%s\"source\"%s\"%s\"%s}",
                  gap, colon, kind < 2 ? 6 : 16, qty, gap, colon, unsigned(minute / 40320 % 12 + 1),
                  unsigned(minute / 1440 % 28 + 1), unsigned(minute / 60 % 24),
                  unsigned(minute % 60), gap, colon,
                  random.next() % 3 == 0 ? "John\xe2\x80\x99s iPhone" : "Apple Watch",
                  pretty ? "\n          " : "");
    to += line;
}

std::string make_body(size_t bytes, bool pretty)
{
    random_bits random;
    std::string body =
        pretty ? "{\n  \"data\" : {\n    \"metrics\" : [\n      " : "{\"data\":{\"metrics\":[";
    for (int metric = 0; body.size() < bytes; metric++) {
        body += metric > 0 ? "," : "";
        body += "{\"name\":\"metric_" + std::to_string(metric) + "\",\"units\":\"count/min\",";
        body += "\"data\":[";
        size_t end = std::min(bytes, body.size() + bytes / 16);
        for (uint64_t minute = 0; body.size() < end; minute++) {
            body += minute > 0 ? "," : "";
            body += pretty ? "\n          " : "";
            append_point(body, random, minute, pretty);
        }
        body += "]}";
    }
    return body + "]}}";
}

double seconds(const std::function<void()> &work)
{
    auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

[[noreturn]] void die(const char *what)
{
    std::fprintf(stderr, "json_bench: %s\n", what);
    std::exit(1);
}

// Counts the tokens, so that they are all looked at.
size_t read_ours(json_reader *reader, const std::string &body, size_t piece)
{
    json_token tokens[64];
    json_token last;
    bool has_last = false;
    size_t total = 0;
    json_reader_reset(reader);
    for (size_t at = 0; at < body.size(); at += piece) {
        json_reader_feed(reader, slice_make(body.data() + at, std::min(piece, body.size() - at)));
        for (size_t count = 1; count > 0; total += count) {
            if (json_reader_read(reader, tokens, 64, &count) != ERR_OK) {
                die(json_reader_fault(reader).message);
            }
        }
    }
    if (json_reader_end(reader, &last, &has_last) != ERR_OK) {
        die("our reader wants more");
    }
    return total;
}

void compare(const char *name, const std::string &body)
{
    json_options options = {64, 256u << 10, false};
    json_reader *reader = json_reader_create(&options);
    simdjson::dom::parser parser;
    simdjson::padded_string padded(body);
    const size_t pieces[] = {body.size(), 16384, 1024, 1};
    const char *const piece_names[] = {"whole", "16 KB", "1 KB", "1 B"};
    std::vector<double> ours[4];
    std::vector<double> dom;
    std::vector<double> jansson;
    if (parser.parse(padded).error()) { // the first run allocates
        die("simdjson refuses the body");
    }
    for (int run = 0; run < runs; run++) {
        for (int i = 0; i < 4; i++) {
            ours[i].push_back(seconds([&] { read_ours(reader, body, pieces[i]); }));
        }
        dom.push_back(seconds([&] {
            if (parser.parse(padded).error()) {
                die("simdjson refuses the body");
            }
        }));
        jansson.push_back(seconds([&] {
            other::json_error_t error;
            other::json_t *root = other::json_loadb(body.data(), body.size(), 0, &error);
            if (root == nullptr) {
                die(error.text);
            }
            other::json_decref(root);
        }));
    }
    double megabytes = double(body.size()) / 1e6;
    double dom_speed = megabytes / median(dom);
    double jansson_speed = megabytes / median(jansson);
    std::printf("%s, %.0f MB; simdjson DOM (%s) %.0f MB/s, jansson %.0f MB/s\n", name, megabytes,
                simdjson::get_active_implementation()->name().c_str(), dom_speed, jansson_speed);
    for (int i = 0; i < 4; i++) {
        double speed = megabytes / median(ours[i]);
        bool targeted = i < 2;
        bool met = speed >= 0.6 * dom_speed && speed >= 8 * jansson_speed;
        const char *verdict = !targeted ? "" : met ? "met" : "short";
        std::printf("  ours, %-5s %6.0f MB/s = %.2f x simdjson, %5.1f x jansson%s%s\n",
                    piece_names[i], speed, speed / dom_speed, speed / jansson_speed,
                    targeted ? "; target 0.6 and 8: " : "", verdict);
    }
    json_reader_destroy(reader);
}

std::string make_event(size_t bytes)
{
    random_bits random;
    std::string event =
        "{\"type\":\"user.login\",\"dedup_id\":\"3f1c9a52-7e11-4f0e-9d7e-0d1f1c8d\","
        "\"payload\":{\"items\":[";
    for (int i = 0; event.size() + 4 < bytes; i++) {
        char item[128];
        std::snprintf(item, sizeof(item), "%s{\"user_id\":%u,\"name\":\"visitor %u\",\"ok\":%s}",
                      i > 0 ? "," : "", unsigned(random.next() % 100000), unsigned(i),
                      random.next() % 2 ? "true" : "null");
        event += item;
    }
    return event + "]}}";
}

void read_documents()
{
    json_options options = {64, 256u << 10, false};
    json_reader *reader = json_reader_create(&options);
    const size_t sizes[] = {1000, 10000, 100000};
    const double targets_us[] = {3, 20, 150};
    for (int i = 0; i < 3; i++) {
        std::string event = make_event(sizes[i]);
        const int rounds = int(20000000 / sizes[i]);
        std::vector<double> times;
        for (int run = 0; run < runs; run++) {
            times.push_back(seconds([&] {
                for (int round = 0; round < rounds; round++) {
                    json_token tokens[64];
                    json_document_begin(reader, slice_make(event.data(), event.size()));
                    for (size_t count = 1; count > 0;) {
                        if (json_document_next(reader, tokens, 64, &count) != ERR_OK) {
                            die("our reader refuses the event");
                        }
                    }
                }
            }));
        }
        double us = median(times) / rounds * 1e6;
        std::printf("event of %6zu bytes: %6.2f us (target %.0f: %s)\n", event.size(), us,
                    targets_us[i], us <= targets_us[i] ? "met" : "short");
    }
    json_reader_destroy(reader);
}

} // namespace

int main(int argc, char **argv)
{
    size_t body_bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : body_megabytes) << 20;
    compare("compact", make_body(body_bytes, false));
    compare("pretty", make_body(body_bytes, true));
    read_documents();
    return 0;
}
