/* Migrations: files are applied in the order of their numbers, each in a transaction with its
 * number, so a crash leaves the database at one version or the next.
 *
 * Happy path: the version is the newest: nothing is done.
 * Failure modes: a newer version means that a newer program was here, and what it wrote would be
 * misread: refused. A failing file is rolled back and named. */
#include "store/migrate.h"

#include "base/log.h"

#include <assert.h>

static uint32_t file_version(const struct store_schema_file *file)
{
    uint64_t number = 0;
    bool is_number = slice_to_u64(slice_make(file->name, 4), &number);
    assert(is_number && number > 0);
    return (uint32_t)number;
}

static enum err apply_file(struct store_connection *connection,
                           const struct store_schema_file *file, struct err_detail *detail)
{
    const struct store_backend *backend = connection->backend;
    enum err err = backend->begin_write(connection, true);
    if (err == ERR_OK) {
        err = backend->schema_apply(connection, file->sql, file_version(file));
        if (err == ERR_OK) {
            err = backend->commit(connection);
        }
        if (err != ERR_OK) {
            err_detail_set(detail, "migrate %s: %s", file->name, backend->error_text(connection));
        }
        backend->rollback(connection);
    } else {
        err_detail_set(detail, "migrate %s: %s", file->name, err_text(err));
    }
    return err;
}

enum err store_migrate(struct store_connection *connection, const struct store_schema_file *files,
                       struct err_detail *detail)
{
    uint32_t version = 0;
    uint32_t newest = 0;
    enum err err = connection->backend->schema_version(connection, &version);
    if (err != ERR_OK) {
        err_detail_set(detail, "read the schema's version: %s", err_text(err));
        return err;
    }
    for (const struct store_schema_file *file = files; file->name != NULL; file++) {
        assert(file_version(file) > newest);
        newest = file_version(file);
    }
    if (version > newest) {
        err_detail_set(detail,
                       "the database was made by a newer program (schema %u, this one knows %u): "
                       "run that program, or restore a backup made before it",
                       version, newest);
        return ERR_VERSION;
    }
    for (const struct store_schema_file *file = files; file->name != NULL; file++) {
        if (file_version(file) > version) {
            err = apply_file(connection, file, detail);
            if (err != ERR_OK) {
                return err;
            }
            log_write(LOG_INFO, "store", "schema is now at %s", file->name);
        }
    }
    return ERR_OK;
}
