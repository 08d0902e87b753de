/*
 * Every reason for which something is not seen, not linked or not exported, for the BPF programs
 * and the agent alike: one row is a counter in the kernel's map, a counter in the agent, and a line
 * of the summary. X(symbol, name shown, what it means)
 */
#ifndef SPANLOOM_DROP_REASON_H
#define SPANLOOM_DROP_REASON_H

/* Counted by the BPF programs. */
#define KERNEL_DROP_REASONS(X)                                                                 \
	X(RING_FULL, "ring_full", "socket events lost because the ring buffer was full")       \
	X(CONN_TABLE_FULL, "conn_table_full",                                                  \
	  "socket events lost because a connection could not be tracked")                      \
	X(PROCESS_TABLE_FULL, "process_table_full",                                            \
	  "child processes not traced because the table was full")                             \
	X(READ_FAULT, "read_fault", "payloads that could not be read from the process")        \
	X(NO_BUFFER, "no_buffer",                                                              \
	  "transfers without a readable buffer (sendfile, io_uring), length kept")             \
	X(VECTOR_LONG, "vector_long",                                                          \
	  "vectored transfers with more pieces than are followed, length kept")                \
	X(PYTHON_READ_FAULT, "python_read_fault",                                              \
	  "times a Python process's thread state or frames could not be read")                 \
	X(PYTHON_STACK_CUT, "python_stack_cut",                                                \
	  "Python stacks too deep to be seen to what was asked")                               \
	X(CONTEXT_UNLIKELY, "context_unlikely",                                                \
	  "times a function that makes contexts was seen with something else")                 \
	X(LATE_WRITE_LOST, "late_write_lost",                                                  \
	  "writes that an event loop put off and whose socket was not found")                  \
	X(UNSAMPLED, "unsampled", "requests that the sampler left out, seen in the kernel")    \
	X(ROOT_LIMIT, "root_limit", "requests left out by the limit of new traces per second") \
	X(REQUEST_TABLE_FULL, "request_table_full",                                            \
	  "requests whose ids could not be kept in the kernel")                                \
	X(HEADER_UNBOUND, "header_unbound",                                                    \
	  "calls sent without traceparent: the request they belong to isn't certain")          \
	X(HEADER_BLOCKING, "header_blocking",                                                  \
	  "calls sent without traceparent: their socket blocks")                               \
	X(HEADER_BUSY, "header_busy",                                                          \
	  "calls sent without traceparent: earlier bytes were still on their way")             \
	X(HEADER_SHAPE, "header_shape",                                                        \
	  "calls sent without traceparent: their head came in pieces or is too long")          \
	X(HEADER_FAILED, "header_failed",                                                      \
	  "calls sent without traceparent: their connection is not followed")                  \
	X(OPTION_SIZE, "option_size", "calls sent without the TCP option: no room for it")     \
	X(OPTION_LOST, "option_lost",                                                          \
	  "segments with the TCP option that got lost and were sent again without it")

/* Counted by the agent. */
#define AGENT_DROP_REASONS(X)                                                                   \
	X(BAD_RECORD, "bad_record", "records from the kernel that make no sense")               \
	X(NO_MEMORY, "no_memory", "allocations that failed")                                    \
	X(CONN_LIMIT, "conn_limit", "connections given up because too many were open")          \
	X(UNKNOWN_PROTOCOL, "unknown_protocol", "connections that speak none of the protocols") \
	X(STREAM_LOST, "stream_lost",                                                           \
	  "times a connection's bytes were lost and it waited for a new message")               \
	X(BAD_MESSAGE, "bad_message", "messages that break their protocol")                     \
	X(HEAD_TOO_LARGE, "head_too_large", "message heads larger than what is kept")           \
	X(EXCHANGE_LOST, "exchange_lost", "requests whose answer could not be followed")        \
	X(RESPONSE_WITHOUT_REQUEST, "response_without_request",                                 \
	  "answers to requests that were not seen, as those made before we looked")             \
	X(ROUTE_UNKNOWN, "route_unknown",                                                       \
	  "answers without http.route: which template matched isn't certain")                   \
	X(ATTR_LIMIT, "attr_limit", "attributes left out of a full span")                       \
	X(PARENT_MULTIPLEXED, "parent_multiplexed",                                             \
	  "client spans without a parent: several requests in flight")                          \
	X(PARENT_HANDOFF, "parent_handoff",                                                     \
	  "client spans without a parent: requests change threads")                             \
	X(PARENT_BACKGROUND, "parent_background",                                               \
	  "client spans without a parent: the thread also works between requests")              \
	X(PARENT_THREAD_OUTLIVED, "parent_thread_outlived",                                     \
	  "client spans without a parent: their thread outlived the request")                   \
	X(PARENT_UNPROVEN, "parent_unproven",                                                   \
	  "client spans without a parent: other work of the process may have made the call")    \
	X(PARENT_EVENTS_LOST, "parent_events_lost",                                             \
	  "client spans without a parent: events were lost meanwhile")                          \
	X(PARENT_OUTSIDE, "parent_outside", "client spans made by what no request has begun")   \
	X(PARENT_CONTEXT_AMBIGUOUS, "parent_context_ambiguous",                                 \
	  "client spans without a parent: their context served two requests")                   \
	X(PARENT_LIMIT, "parent_limit",                                                         \
	  "client spans without a parent: too many waited for their request's answer")          \
	X(CONTEXT_LIMIT, "context_limit",                                                       \
	  "contexts of a runtime forgotten because there were too many")                        \
	X(CODE_LIMIT, "code_limit",                                                             \
	  "times a function of a Python process was not known because it has too many")         \
	X(SPAN_LIMIT, "span_limit", "custom spans given up because too many were open")         \
	X(SPAN_UNFINISHED, "span_unfinished",                                                   \
	  "native custom spans dropped: their function never returned")                         \
	X(PARENT_OTHER_TRACE, "parent_other_trace",                                             \
	  "client spans without a parent: another trace's id had been sent with them")          \
	X(JOIN_AMBIGUOUS, "join_ambiguous",                                                     \
	  "server spans not joined to a call: several calls fit")                               \
	X(JOIN_LATE, "join_late",                                                               \
	  "server spans not joined to their call: its trace wasn't known in time")              \
	X(SDK_ACTIVE, "sdk_active", "spans left out since the process reports its own")         \
	X(PARENT_NO_REQUEST, "parent_no_request",                                               \
	  "client spans made while no request was being handled")                               \
	X(SAMPLED_OUT, "sampled_out", "spans not kept by the sampler")                          \
	X(QUEUE_FULL, "queue_full", "spans dropped because the export queue was full")          \
	X(EXPORT_FAILED, "export_failed",                                                       \
	  "spans dropped because the collector could not be reached in time")                   \
	X(EXPORT_REJECTED, "export_rejected", "spans refused by the collector")                 \
	X(CONSOLE_BUSY, "console_busy", "spans not shown because the terminal was slower")      \
	X(FILE_FAILED, "file_failed", "spans that could not be written to the file")

#define DROP_ENUM(symbol, name, text) DROP_##symbol,
enum drop_reason {
	KERNEL_DROP_REASONS(DROP_ENUM) DROP_KERNEL_COUNT,
	DROP_KERNEL_LAST = DROP_KERNEL_COUNT - 1, /* so that the numbers go on without a gap */
	AGENT_DROP_REASONS(DROP_ENUM) DROP_REASON_COUNT,
};
#undef DROP_ENUM

#endif
