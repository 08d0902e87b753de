#include "probe/option.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "probe/cgroup.h"
#include "probe/option_adopt.h"
#include "tcp_option.h"

enum { TRIAL_MS = 1000, TRIAL_BYTES = 64 };

struct option {
	struct bpf_link *link;     /* NULL: it does not work */
	struct bpf_link *adopting; /* the iterator over sockets; NULL: there is none */
	int sent;                  /* the map, the object's own */
	const char *why;
};

/* --- the trial -------------------------------------------------------------------------------- */

static bool trial_connect(int listener, int client, int *ret_server)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pollfd p = { .fd = listener, .events = POLLIN };
	socklen_t len = sizeof(at);

	if (bind(listener, (struct sockaddr *)&at, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&at, &len) ||
	    connect(client, (struct sockaddr *)&at, len) || poll(&p, 1, TRIAL_MS) != 1)
		return false;
	*ret_server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return *ret_server >= 0;
}

/* Whether `server` receives what `client` sends, and nothing else. */
static bool trial_send(int client, int server)
{
	struct pollfd p = { .fd = server, .events = POLLIN };
	char sent[TRIAL_BYTES], got[TRIAL_BYTES + 1];

	memset(sent, 'x', sizeof(sent));
	return send(client, sent, sizeof(sent), MSG_NOSIGNAL) == (ssize_t)sizeof(sent) &&
	       poll(&p, 1, TRIAL_MS) == 1 &&
	       recv(server, got, sizeof(got), MSG_DONTWAIT) == (ssize_t)sizeof(sent) &&
	       memcmp(sent, got, sizeof(sent)) == 0;
}

/* Whether these ids were received, by whatever socket; forgets them. */
static bool trial_arrived(int received, const uint8_t *ids)
{
	struct option_key key, *last = NULL;
	struct option_ids have;
	int i;

	for (i = 0; i < OPTIONS_RECEIVED_MAX && !bpf_map_get_next_key(received, last, &key); i++) {
		last = &key;
		if (bpf_map_lookup_elem(received, &key, &have))
			continue;
		if (memcmp(have.trace_id, ids, sizeof(have.trace_id)) == 0 &&
		    memcmp(have.span_id, ids + sizeof(have.trace_id), sizeof(have.span_id)) == 0) {
			bpf_map_delete_elem(received, &key);
			return have.trace_flags == 1;
		}
	}
	return false;
}

static const char *trial_on(int sent, int received, int listener, int client)
{
	struct option_state state = {
		.option = { OPTION_KIND, OPTION_BYTES, OPTION_EXPERIMENT, OPTION_SAMPLED },
		.stage = OPTION_TRIAL,
	};
	uint8_t *ids = state.option + OPTION_HEAD_BYTES;
	int server = -1;
	bool whole;

	if (getrandom(ids, OPTION_BYTES - OPTION_HEAD_BYTES, GRND_NONBLOCK) < 0)
		ids[0] = 1;
	if (bpf_map_update_elem(sent, &client, &state, BPF_ANY))
		return "the kernel keeps nothing for the TCP option with sockets";
	if (!trial_connect(listener, client, &server))
		return "the TCP option could not be tried: no connection over loopback";
	whole = trial_send(client, server);
	close(server);
	if (!whole)
		return "a connection with the TCP option did not carry what was sent";
	return trial_arrived(received, ids) ? NULL : "a TCP option that was sent did not arrive";
}

/* Why it does not work; NULL: it does. */
static const char *trial(const struct bpf_object *obj, int sent)
{
	int received = bpf_object__find_map_fd_by_name(obj, "options_received");
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const char *why = "the TCP option could not be tried: no sockets";

	if (listener >= 0 && client >= 0)
		why = trial_on(sent, received, listener, client);
	if (client >= 0)
		close(client);
	if (listener >= 0)
		close(listener);
	return why;
}

/* ---------------------------------------------------------------------------------------------- */

/* Does the kernel tell of calls before their bytes are queued? */
static bool calls_are_early(const struct bpf_object *obj)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj)
	{
		if (strcmp(bpf_program__section_name(prog), "tp_btf/tcp_sendmsg_locked") == 0)
			return bpf_program__autoload(prog);
	}
	return false;
}

static void attach_adopting(struct option *o, const struct bpf_object *obj)
{
	const struct bpf_program *prog = bpf_object__find_program_by_name(obj, "option_adopts");

	if (prog && bpf_program__fd(prog) >= 0)
		o->adopting = bpf_program__attach_iter(prog, NULL);
}

static void attach(struct option *o, const struct bpf_object *obj)
{
	const struct bpf_program *prog = bpf_object__find_program_by_name(obj, "tcp_option");

	if (!prog || bpf_program__fd(prog) < 0) {
		o->why = "the kernel has no programs for TCP options (5.10)";
		return;
	}
	o->sent = bpf_object__find_map_fd_by_name(obj, "options_sent");
	if (cgroup_attach(prog, &o->link, &o->why))
		return;
	o->why = trial(obj, o->sent);
	if (o->why) {
		bpf_link__destroy(o->link);
		o->link = NULL;
		return;
	}
	attach_adopting(o, obj);
	if (!calls_are_early(obj)) {
		o->why = "the kernel does not tell of calls before they are sent (6.15): TCP "
			 "options are read, and sent only on sockets that headers are put into";
	}
}

int option_open(struct bpf_object *obj, struct option **ret)
{
	struct option *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	attach(o, obj);
	log_debug("TCP option: %s", o->why ? o->why : "tried, works");
	*ret = o;
	return 0;
}

void option_close(struct option *o)
{
	if (!o)
		return;
	bpf_link__destroy(o->adopting);
	bpf_link__destroy(o->link);
	free(o);
}

bool option_works(const struct option *o, const char **ret_why)
{
	*ret_why = o->why;
	return o->link != NULL;
}

int option_adopt(struct option *o, uint32_t pid)
{
	return o && o->adopting ? connections_adopt(bpf_link__fd(o->adopting), o->sent, pid) : 0;
}
