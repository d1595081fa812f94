/* weir journal check | dump: reads the segments of DATA_DIR and writes nothing, so it may run
 * beside the server. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "command.h"
#include "journal/journal.h"
#include "progress.h"
#include "record/record.h"

static const char usage[] =
    "weir journal check\n"
    "  Verifies every commit and frame; ends with 1 when something is damaged.\n"
    "weir journal dump [--after POSITION]\n"
    "  Each frame as one JSON line: position, org, form, bytes, received_at.\n";

struct journal_walk {
    struct progress progress;
    bool dump;
    uint64_t after;
};

static void on_frame(const struct journal_frame *frame, void *context)
{
    struct journal_walk *walk = context;
    struct record_frame record;
    char received[CLOCK_TEXT_BYTES];
    char id[ID_TEXT_BYTES];
    if (!walk->dump || frame->position <= walk->after) {
        return;
    }
    if (record_frame_decode(frame->bytes_slice, &record) != ERR_OK) {
        (void)printf("{\"position\":\"%" PRIu64 "\",\"readable\":false}\n", frame->position);
        return;
    }
    clock_format_rfc3339(record.received_ms, received);
    id_format(record.id, id);
    (void)printf("{\"position\":\"%" PRIu64 "\",\"org\":%" PRIu64 ",\"lane\":%u,\"form\":%u,"
                 "\"id\":\"%.*s\",\"records\":%u,\"bytes\":%zu,\"received_at\":\"%.*s\"}\n",
                 frame->position, frame->org, frame->lane, frame->form, ID_TEXT_BYTES, id,
                 frame->record_count, frame->bytes_slice.size, CLOCK_TEXT_BYTES, received);
}

static void on_progress(uint64_t done, uint64_t all, void *context)
{
    struct journal_walk *walk = context;
    progress_show(&walk->progress, done, all);
}

static void report_print(const struct journal_check_report *report)
{
    (void)printf("segments        %" PRIu64 "\ncommits         %" PRIu64
                 "\nframes          %" PRIu64 "\nbytes           %" PRIu64
                 "\npositions       %" PRIu64 " to %" PRIu64 "\ntorn bytes      %" PRIu64
                 "\ndamaged bytes   %" PRIu64 " in %" PRIu64 " places\nlast stop       %s\n",
                 report->segments, report->commits, report->frames, report->bytes,
                 report->first_position, report->last_position, report->torn_bytes,
                 report->damaged_bytes, report->damaged_places,
                 report->clean ? "clean" : "unclean, or still running");
}

static bool after_read(int argc, char **argv, uint64_t *ret_after)
{
    if (argc == 2) {
        return true;
    }
    return argc == 4 && strcmp(argv[2], "--after") == 0 &&
           slice_to_u64(slice_from_text(argv[3]), ret_after);
}

static bool is_help(int argc, char **argv)
{
    const char *last = argc > 1 ? argv[argc - 1] : "--help";
    return strcmp(last, "--help") == 0 || strcmp(last, "-h") == 0;
}

int command_journal(const struct settings *settings, int argc, char **argv)
{
    struct journal_walk walk = {0};
    struct journal_check_report report = {0};
    struct err_detail detail = {{0}};
    char directory[4096];
    const char *verb = argc > 1 ? argv[1] : "--help";
    walk.dump = strcmp(verb, "dump") == 0;
    if (is_help(argc, argv)) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if ((!walk.dump && strcmp(verb, "check") != 0) || (!walk.dump && argc > 2) ||
        !after_read(argc, argv, &walk.after)) {
        (void)command_fail("usage: weir journal check | dump [--after POSITION]");
        return 2;
    }
    log_set_level(LOG_ERROR);
    (void)snprintf(directory, sizeof(directory), "%s/journal", settings->data_dir);
    progress_begin(&walk.progress, walk.dump ? "dumping" : "checking");
    enum err err = journal_check(directory, &report, on_frame, on_progress, &walk, &detail);
    progress_end(&walk.progress);
    if (err != ERR_OK) {
        return command_fail("journal %s: %s", verb,
                            detail.text[0] != '\0' ? detail.text : err_text(err));
    }
    if (!walk.dump) {
        report_print(&report);
    }
    return report.damaged_bytes != 0 ? 1 : 0;
}
