/* A trial of header injection on connections of our own, over loopback: is what a program sees of
 * its socket, and what arrives, as it should be? */
#ifndef PROBE_INJECT_TEST_H
#define PROBE_INJECT_TEST_H

#include <stdbool.h>

struct trial {
	const char *failed; /* what went wrong, to stand behind "the kernel "; NULL: nothing */
	bool inq_wrong;     /* ioctl(FIONREAD) tells something else than the bytes that wait */
};

/*
 * `sockets` and `injections`: descriptors of the maps, with the program attached to the first. 0,
 * or -errno when the trial itself could not be made (no loopback, no descriptors).
 */
int inject_trial(int sockets, int injections, struct trial *ret);

#endif
