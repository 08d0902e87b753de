#include "base/ratio.h"

#define TWO_POW_64 18446744073709551616.0

enum ratio_kind ratio_bound(double ratio, uint64_t *ret_bound)
{
	uint64_t bound;

	if (!(ratio > 0))
		return RATIO_NONE;
	if (ratio >= 1)
		return RATIO_ALL;
	/* A double below 1 is at most 1 - 2^-53, so the product fits; the 0.5 rounds the small
	 * ones. */
	bound = (uint64_t)(ratio * TWO_POW_64 + 0.5);
	if (!bound)
		return RATIO_NONE;
	*ret_bound = bound;
	return RATIO_BOUND;
}
