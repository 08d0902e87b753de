/*
 * The TCP option that carries a call's ids where no header can: its program on the sockets of the
 * machine, tried at start on a connection of our own. Gone when the agent ends, however it ends.
 */
#ifndef PROBE_OPTION_H
#define PROBE_OPTION_H

#include <stdbool.h>
#include <stdint.h>

struct bpf_object;
struct option;

/*
 * Attaches what `obj` (loaded) has of it and sends an option over loopback (takes about 1 ms). 0 or
 * -ENOMEM: whatever else fails leaves it out, see option_works(). `obj` must outlive it.
 */
int option_open(struct bpf_object *obj, struct option **ret);
/* Takes NULL. */
void option_close(struct option *o);

/* Whether options are read, and sent where *ret_why doesn't say that they aren't: one sentence,
 * never freed; NULL: nothing to say. */
bool option_works(const struct option *o, const char **ret_why);

/*
 * The TCP connections of a process that were open before send and read options as well, where the
 * kernel can set that (6.15). 0 or -errno as process_sockets(). Takes NULL.
 */
int option_adopt(struct option *o, uint32_t pid);

#endif
