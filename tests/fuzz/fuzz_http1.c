/* HTTP/1.x connections through the whole tracer. Corpus: tests/fuzz/corpus/http1. */
#include "events.h"

#include "protocols/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct protocol *const protocols[] = { &http1_protocol, NULL };

	return fuzz_events(protocols, data, size);
}
