/* Backup: which engine can copy its database, and which has its own way. */
#include "store/sqlite.h"
#include "store/store.h"

enum err store_backup(const struct store_options *options, const char *path,
                      void (*on_progress)(uint64_t done, uint64_t all, void *context),
                      void *context, struct err_detail *detail)
{
    static const char prefix[] = "sqlite:";
    if (!slice_starts_with(slice_from_text(options->url), SLICE_LITERAL(prefix))) {
        err_detail_set(detail, "the store is PostgreSQL: back it up with pg_dump (or "
                               "pg_basebackup), restore it with pg_restore");
        return ERR_UNSUPPORTED;
    }
    return store_sqlite_backup(options->url + sizeof(prefix) - 1, path, on_progress, context,
                               detail);
}
