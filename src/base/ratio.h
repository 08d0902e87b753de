/*
 * The bound of a ratio sampler, for who decides in user space and for who decides in the kernel: a
 * trace is kept when its id's last eight bytes, big endian, are below it. Pure; the one place where
 * the ratio becomes a number, so that both decide alike.
 */
#ifndef BASE_RATIO_H
#define BASE_RATIO_H

#include <stdint.h>

enum ratio_kind { RATIO_NONE, RATIO_ALL, RATIO_BOUND };

/*
 * The bound of the OpenTelemetry SDKs' TraceIdRatioBased sampler. RATIO_BOUND: *ret_bound is set
 * and never 0. Else it is untouched: the ratio is 0, negative or no number (none), 1 or more (all).
 */
enum ratio_kind ratio_bound(double ratio, uint64_t *ret_bound);

#endif
