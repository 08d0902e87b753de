/* Redis connections through the whole tracer. Corpus: tests/fuzz/corpus/redis. */
#include "events.h"

#include "protocols/redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct protocol *const protocols[] = { &redis_protocol, NULL };

	return fuzz_events(protocols, data, size);
}
