/* Real: base/sys.c under the names real_open, real_close and so on, for a file that stands in its
 * place. What a call does when nothing special happens is so not written a second time.
 *
 * Thread, memory, errors: as base/sys.h. Included by one file of a program, after base/sys.h. */
#pragma once
#include "base/sys.h"

/* The renamed functions have no prototype, and need none: only the file that includes them calls
 * them. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define sys_open           real_open
#define sys_close          real_close
#define sys_pread          real_pread
#define sys_pwrite         real_pwrite
#define sys_pwritev        real_pwritev
#define sys_fdatasync      real_fdatasync
#define sys_fsync          real_fsync
#define sys_ftruncate      real_ftruncate
#define sys_fallocate      real_fallocate
#define sys_fstat          real_fstat
#define sys_stat           real_stat
#define sys_rename         real_rename
#define sys_unlink         real_unlink
#define sys_mkdir          real_mkdir
#define sys_sync_directory real_sync_directory
#define sys_opendir        real_opendir
#define sys_readdir        real_readdir
#define sys_closedir       real_closedir
#define sys_lock           real_lock
#define sys_free_bytes     real_free_bytes
#define sys_write_back     real_write_back
#include "../src/base/sys.c" /* NOLINT(bugprone-suspicious-include) */
#undef sys_open
#undef sys_close
#undef sys_pread
#undef sys_pwrite
#undef sys_pwritev
#undef sys_fdatasync
#undef sys_fsync
#undef sys_ftruncate
#undef sys_fallocate
#undef sys_fstat
#undef sys_stat
#undef sys_rename
#undef sys_unlink
#undef sys_mkdir
#undef sys_sync_directory
#undef sys_opendir
#undef sys_readdir
#undef sys_closedir
#undef sys_lock
#undef sys_free_bytes
#undef sys_write_back
#pragma GCC diagnostic pop
