// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints of trace.h. A tracepoint that is not enabled costs the call of the function here
 * and a no-op in place of its jump. The module makes such a call about once per run of a ring.
 */
#include "src/sys/helpers.h"

#define CREATE_TRACE_POINTS
#include "src/sys/trace.h"

void xbk_trace_admit(u16 domain, u32 device, u8 ring, u32 requests)
{
	trace_rblkback_admit(domain, device, ring, requests);
}

void xbk_trace_throttle(u16 domain, u32 device, u8 ring, u32 requests)
{
	trace_rblkback_throttle(domain, device, ring, requests);
}

void xbk_trace_wake(u16 domain, u32 device, u8 ring)
{
	trace_rblkback_wake(domain, device, ring);
}

void xbk_trace_limit(u16 domain, u32 device, u32 refill, u32 max)
{
	trace_rblkback_limit(domain, device, refill, max);
}
