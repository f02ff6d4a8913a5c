/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of the limits. "domain" is the id of the frontend's domain, "device" the number of
 * the virtual device in xenstore (51712 is xvda). Documentation/throttle.rst shows how to use the
 * tracepoints.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM rblkback

#if !defined(RBLKBACK_SYS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define RBLKBACK_SYS_TRACE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(rblkback_requests,
	TP_PROTO(u16 domain, u32 device, u8 ring, u32 requests),
	TP_ARGS(domain, device, ring, requests),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, requests)
		__field(u16, domain)
		__field(u8, ring)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->requests = requests;
		__entry->domain = domain;
		__entry->ring = ring;
	),
	TP_printk("domain=%u device=%u ring=%u requests=%u",
		  __entry->domain, __entry->device, __entry->ring,
		  __entry->requests)
);

/* "requests" requests of a ring are admitted. Only for a disk with a limit. */
DEFINE_EVENT(rblkback_requests, rblkback_admit,
	TP_PROTO(u16 domain, u32 device, u8 ring, u32 requests),
	TP_ARGS(domain, device, ring, requests));

/* "requests" requests of a ring have to wait for tokens. */
DEFINE_EVENT(rblkback_requests, rblkback_throttle,
	TP_PROTO(u16 domain, u32 device, u8 ring, u32 requests),
	TP_ARGS(domain, device, ring, requests));

/* A ring that waited for tokens is woken. */
TRACE_EVENT(rblkback_wake,
	TP_PROTO(u16 domain, u32 device, u8 ring),
	TP_ARGS(domain, device, ring),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, domain)
		__field(u8, ring)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->domain = domain;
		__entry->ring = ring;
	),
	TP_printk("domain=%u device=%u ring=%u",
		  __entry->domain, __entry->device, __entry->ring)
);

/* The limit of a disk has changed. "refill" 0 means no limit. */
TRACE_EVENT(rblkback_limit,
	TP_PROTO(u16 domain, u32 device, u32 refill, u32 max),
	TP_ARGS(domain, device, refill, max),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, refill)
		__field(u32, max)
		__field(u16, domain)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->refill = refill;
		__entry->max = max;
		__entry->domain = domain;
	),
	TP_printk("domain=%u device=%u refill=%u max=%u",
		  __entry->domain, __entry->device, __entry->refill,
		  __entry->max)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH src/sys
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
