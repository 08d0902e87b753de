#include "base/stats.h"

#define NAME(symbol, name, text) name,
#define TEXT(symbol, name, text) text,

const char *stats_figure_name(enum stats_figure figure)
{
	static const char *const names[] = { STATS_FIGURES(NAME) };

	return names[figure];
}

const char *drop_reason_name(enum drop_reason reason)
{
	static const char *const names[] = { KERNEL_DROP_REASONS(NAME) AGENT_DROP_REASONS(NAME) };

	return names[reason];
}

const char *drop_reason_text(enum drop_reason reason)
{
	static const char *const texts[] = { KERNEL_DROP_REASONS(TEXT) AGENT_DROP_REASONS(TEXT) };

	return texts[reason];
}
