/* List: a doubly linked list whose links live in the members.
 *
 * Thread: one owner.
 * Memory: the list owns nothing.
 * Errors: none. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct list_link {
    struct list_link *previous;
    struct list_link *next;
};

struct list {
    struct list_link head; /* head.next is the first member */
};

#define LIST_CONTAINER(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->head.previous = &list->head;
    list->head.next = &list->head;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline void list_push_back(struct list *list, struct list_link *link)
{
    link->previous = list->head.previous;
    link->next = &list->head;
    list->head.previous->next = link;
    list->head.previous = link;
}

static inline void list_push_front(struct list *list, struct list_link *link)
{
    link->previous = &list->head;
    link->next = list->head.next;
    list->head.next->previous = link;
    list->head.next = link;
}

/* A link that is in no list has next NULL: removing it does nothing. */
static inline void list_remove(struct list_link *link)
{
    if (link->next == NULL) {
        return;
    }
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->previous = NULL;
    link->next = NULL;
}

/* NULL when empty. */
static inline struct list_link *list_first(struct list *list)
{
    return list_is_empty(list) ? NULL : list->head.next;
}

static inline struct list_link *list_take_first(struct list *list)
{
    struct list_link *link = list_first(list);
    if (link != NULL) {
        list_remove(link);
    }
    return link;
}

/* The member after `link`, or NULL at the end. */
static inline struct list_link *list_after(struct list *list, struct list_link *link)
{
    return link->next == &list->head ? NULL : link->next;
}
