/* The whole agent: every layer put together, and the one loop that drives them. */
#ifndef AGENT_H
#define AGENT_H

#include "config/options.h"

/* Runs until it is told to stop. The exit status: 0; 1 when it could not start (said on stderr). */
int agent_run(const struct options *options);

#endif
