/* Types the records of the ring: the one place where bytes from the kernel become structures. */
#ifndef PROBE_RING_H
#define PROBE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "probe/probe.h"

struct ring_reader {
	const struct probe_sink *sink;
	struct stats *stats;
	struct hooks *hooks;   /* of processes that go */
	struct inject *inject; /* of sockets that leave its table */
	uint32_t losses;       /* as the last record said */
	struct hash frames; /* what RECORD_SITE and RECORD_ROUTE told of records still to come: by
			       thread, and by connection */
};

/* What it holds; not `r` itself. */
void ring_reader_free(struct ring_reader *r);

/* One record. A record that makes no sense is counted and passed over. */
void ring_record(struct ring_reader *r, const void *data, size_t size);

#endif
