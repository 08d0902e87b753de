/* The agent's version, as --version, telemetry.sdk.version and the User-Agent say it. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#ifndef SPANLOOM_VERSION
#define SPANLOOM_VERSION "0.1.0"
#endif

#endif
