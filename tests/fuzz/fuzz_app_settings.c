/* Promise: any bytes in a settings file are either read or refused with a sentence that names the
 * line; what was read prints and stays within its bounds. */
#include "../../app/settings.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings settings;
    struct err_detail detail = {{0}};
    char path[64];
    int fd = memfd_create("settings", MFD_CLOEXEC);
    assert(fd >= 0);
    ssize_t written = write(fd, data, size);
    assert(written == (ssize_t)size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    log_set_level(LOG_ERROR);
    enum err err = settings_load(&settings, path, &detail);
    if (err == ERR_OK) {
        struct buffer text;
        buffer_init(&text, 4194304);
        err = settings_print(&settings, &text);
        assert(err == ERR_OK);
        assert(settings.port <= 65535 && settings.worker_batch_size >= 1);
        buffer_finish(&text);
        settings_finish(&settings);
    } else {
        assert(err == ERR_CONFIG);
        assert(strchr(detail.text, '\0') != detail.text); /* never a refusal without a reason */
    }
    (void)close(fd);
    return 0;
}
