/*
 * The rules of link.h: whose call may it be, and is that certain? It changes nothing but the call,
 * and what a call says of its process. Invariant: a candidate is confirmed only when everything
 * that is known then speaks for it; what comes to be known within LINK_WAIT_NS still counts.
 */
#include "trace/link_context.h"
#include "trace/link_proxy.h"
#include "trace/link_settle.h"

/* --- the candidate --- */

static void candidate(struct call *c, struct request *r, enum rule rule)
{
	/* A connection attempt is told of when it has failed, perhaps in a later request. */
	if (!r->head_read || c->began_ns < r->began_ns) {
		c->why_none = DROP_PARENT_NO_REQUEST;
		return;
	}
	r->refs++;
	c->request = r;
	c->rule = rule;
}

/* A call outside any request. At the start of a process that is setting up, later it is work beside
 * the requests. */
static void note_idle_call(struct process *p, struct thread *t, const struct call *c)
{
	if (!p->first_idle_call_ns)
		p->first_idle_call_ns = c->began_ns;
	if (p->served || c->began_ns > p->first_idle_call_ns + LINK_SETUP_NS)
		p->background = true;
	t->independent = true;
}

/* A thread that has not slept since then was not called to other work. */
bool link_follows(const struct request *r, const struct link_point *at)
{
	if (at->tid == r->active.tid && at->turn && r->active.turn)
		return at->turn == r->active.turn;
	return at->ns <= r->active.ns + LINK_PROMPT_NS;
}

void link_choose_process(struct linker *l, struct thread *t, struct call *c,
			 const struct link_point *at)
{
	struct process *p = c->process;
	struct request *only = list_entry(p->requests.next, struct request, node);

	if (!p->open) {
		c->why_none = DROP_PARENT_NO_REQUEST;
		note_idle_call(p, t, c);
		return;
	}
	c->why_none = DROP_PARENT_MULTIPLEXED;
	/* Others may be open that the kernel side does not report. */
	if (p->multiplexed || p->trusted_ever || p->open > 1)
		return;
	if (only->blocking) { /* handled by a thread of its own, which is not this one */
		c->why_none = DROP_PARENT_NO_REQUEST;
		return;
	}
	c->why_none = DROP_PARENT_EVENTS_LOST;
	if (c->began_ns < l->doubt_until_ns)
		return;
	c->why_none = DROP_PARENT_BACKGROUND;
	if (p->background || (t->independent && t->tid != only->tid))
		return;
	c->loose = !link_follows(only, at);
	/* Nothing in the request led to it: a timer did, or what the request waited for without our
	 * seeing it. On a connection of its own making that may be the look-up of a name; on one
	 * that was there it is taken for work beside the requests. */
	if (c->loose && c->conn_id && c->conn_id != only->opened_conn) {
		p->background = true;
		return;
	}
	candidate(c, only, RULE_PROCESS);
}

bool link_choose_thread(const struct thread *t, struct call *c)
{
	if (t->open == 1 && t->handling) {
		candidate(c, t->handling, RULE_THREAD);
		return true;
	}
	if (t->open) {
		c->why_none = DROP_PARENT_MULTIPLEXED;
		return true;
	}
	if (t->born_in) {
		c->why_none = DROP_PARENT_THREAD_OUTLIVED;
		if (!t->born_in->ended)
			candidate(c, t->born_in, RULE_CHILD_THREAD);
		return true;
	}
	return false;
}

/* --- the decision --- */

/* The thread has the request to itself; whether it also handles it shows when it answers. */
enum verdict link_judge_thread(const struct process *p, const struct request *r,
			       enum patience patience, enum drop_reason *why)
{
	*why = DROP_PARENT_MULTIPLEXED;
	if (r->shared)
		return VERDICT_NO;
	*why = DROP_PARENT_HANDOFF;
	if (p->handoff)
		return VERDICT_NO;
	if (r->ended || (patience != PATIENT && (r->answered || p->direct)))
		return VERDICT_YES;
	return patience == PATIENT ? VERDICT_WAIT : VERDICT_NO;
}

static enum verdict judge_child(const struct call *c, uint64_t now_ns, enum patience patience,
				enum drop_reason *why)
{
	*why = DROP_PARENT_HANDOFF;
	if (c->process->handoff)
		return VERDICT_NO;
	*why = DROP_PARENT_THREAD_OUTLIVED;
	if (!c->gone_ns)
		return patience == PATIENT ? VERDICT_WAIT : VERDICT_NO;
	/* Was it joined, or does its whole process end? */
	return patience == LAST || now_ns >= c->gone_ns + LINK_GRACE_NS ? VERDICT_YES
									: VERDICT_WAIT;
}

static enum verdict judge_process(const struct call *c, enum patience patience,
				  enum drop_reason *why)
{
	const struct request *r = c->request;
	const struct process *p = c->process;

	*why = DROP_PARENT_MULTIPLEXED;
	if (r->overlapped || p->multiplexed || p->trusted_ever || r->began_ns < p->clear_ns)
		return VERDICT_NO;
	*why = DROP_PARENT_BACKGROUND;
	if (p->background)
		return VERDICT_NO;
	if (patience == PATIENT)
		return VERDICT_WAIT;
	/* One of two calls at once may be other work, and so may a call that nothing led to, or
	 * that led to nothing. */
	*why = DROP_PARENT_UNPROVEN;
	return c->overlapped || c->loose || !c->proven ? VERDICT_NO : VERDICT_YES;
}

enum verdict link_judge(const struct call *c, uint64_t now_ns, enum patience patience,
			enum drop_reason *why)
{
	const struct request *r = c->request;

	*why = c->why_none;
	if (!r)
		return VERDICT_NO;
	*why = DROP_PARENT_EVENTS_LOST;
	if (r->lost)
		return VERDICT_NO;
	*why = DROP_PARENT_MULTIPLEXED;
	if (r->shared)
		return VERDICT_NO;
	switch (c->rule) {
	case RULE_THREAD:
		return link_judge_thread(c->process, r, patience, why);
	case RULE_CHILD_THREAD:
		return judge_child(c, now_ns, patience, why);
	default:
		return judge_process(c, patience, why);
	}
}

enum patience link_patience(const struct call *c, uint64_t now_ns, bool last)
{
	if (last)
		return LAST;
	return c->ended_ns && now_ns >= c->ended_ns + LINK_WAIT_NS ? TIME_IS_UP : PATIENT;
}

bool link_decide(struct linker *l, struct call *c, uint64_t now_ns, bool last)
{
	enum patience patience = link_patience(c, now_ns, last);
	struct request *r = NULL;
	enum drop_reason why;
	enum verdict v;

	if (c->seq)
		return link_decide_by_context(l, c, now_ns, last);
	v = link_judge_hop(c, patience, &r);
	if (v == VERDICT_NO) {
		r = c->request;
		v = link_judge(c, now_ns, patience, &why);
	}
	if (v == VERDICT_WAIT)
		return false;
	if (v == VERDICT_NO)
		stats_drop(l->stats, why, 1);
	link_call_made_for(l, c, v == VERDICT_YES ? r : NULL);
	return true;
}
