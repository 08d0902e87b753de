/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Text from the
 * wire may be any bytes; what leaves the agent must be UTF-8. Pure; it owns no memory.
 */
#ifndef EXPORT_OTLP_ENCODE_TEXT_H
#define EXPORT_OTLP_ENCODE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"

enum { UTF8_REPLACEMENT = 0xfffd, UTF8_REPLACEMENT_BYTES = 3 };

/*
 * Takes the first code point off *text, which must not be empty. UTF8_REPLACEMENT for invalid
 * bytes, of which it takes the longest run that could have begun a character, at least one
 * (Unicode, "U+FFFD substitution of maximal subparts").
 */
uint32_t utf8_next(struct slice *text);
bool utf8_valid(struct slice text);
/* Code points that would act on a terminal or hide what stands there: C0, DEL, C1, line and bidi
 * controls. */
bool utf8_is_control(uint32_t point);
/* Appends `text`, invalid bytes replaced: never more than UTF8_REPLACEMENT_BYTES bytes for each of
 * its own. */
void utf8_append_clean(struct buf *out, struct slice text);

#endif
