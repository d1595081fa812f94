/* Tree: a folder that a test made, removed with all that is in it.
 *
 * Thread: any.  Memory: none.  Errors: fail the test; a folder that is not there is none. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>

static inline int tree_remove_one(const char *path, const struct stat *found, int kind,
                                  struct FTW *place)
{
    (void)found;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline void tree_remove(const char *path)
{
    assert_true(nftw(path, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT);
}
