// SPDX-License-Identifier: GPL-2.0
/*
 * Rust cannot call inline functions and macros. Each helper here is a function for one of them; see
 * helpers.h.
 */
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <asm/barrier.h>
#include <asm/xen/hypercall.h>
#include <xen/events.h>
#include <xen/page.h>
#include <xen/xen.h>

#include "xenbus/helpers.h"

void xbk_set_map_op(struct gnttab_map_grant_ref *op, struct page *page,
		    u32 flags, u32 gref, u16 domid)
{
	gnttab_set_map_op(op, (unsigned long)page_address(page), flags, gref,
			  domid);
}

void xbk_set_unmap_op(struct gnttab_unmap_grant_ref *op, struct page *page,
		      u32 flags, u32 handle)
{
	gnttab_set_unmap_op(op, (unsigned long)page_address(page), flags,
			    handle);
}

void xbk_set_copy_op(struct gnttab_copy *op, struct page *page, u16 offset,
		     u16 len, u32 gref, u16 domid, bool from_frame)
{
	const struct gnttab_copy_ptr frame = {
		.u.ref = gref,
		.domid = domid,
		.offset = offset,
	}, own = {
		.u.gmfn = virt_to_gfn(page_address(page)),
		.domid = DOMID_SELF,
		.offset = offset,
	};

	op->source = from_frame ? frame : own;
	op->dest = from_frame ? own : frame;
	op->len = len;
	op->flags = from_frame ? GNTCOPY_source_gref : GNTCOPY_dest_gref;
	/* If Xen does not process the operation, nothing is copied. */
	op->status = GNTST_general_error;
}

void *xbk_page_address(struct page *page)
{
	return page_address(page);
}

int xbk_copy_from(void *dest, u16 len, u32 gref, u16 domid)
{
	struct gnttab_copy op = {
		.source.u.ref = gref,
		.source.domid = domid,
		.dest.u.gmfn = virt_to_gfn(dest),
		.dest.domid = DOMID_SELF,
		.dest.offset = offset_in_page(dest),
		.len = len,
		.flags = GNTCOPY_source_gref,
	};

	gnttab_batch_copy(&op, 1);
	return op.status;
}

bool xbk_page_is_used(struct page *page)
{
	return page_count(page) > 1;
}

void xbk_notify(evtchn_port_t port)
{
	notify_remote_via_evtchn(port);
}

int xbk_evtchn_peer(evtchn_port_t port, domid_t *domain, evtchn_port_t *remote)
{
	struct evtchn_status status = { .dom = DOMID_SELF, .port = port };
	int err = HYPERVISOR_event_channel_op(EVTCHNOP_status, &status);

	if (err < 0)
		return err;
	if (status.status != EVTCHNSTAT_interdomain)
		return 0;
	*domain = status.u.interdomain.dom;
	*remote = status.u.interdomain.port;
	return 1;
}

void xbk_evtchn_close(evtchn_port_t port)
{
	struct evtchn_close close = { .port = port };

	HYPERVISOR_event_channel_op(EVTCHNOP_close, &close);
}

void xbk_irq_lateeoi(unsigned int irq, bool spurious)
{
	if (!spurious) {
		xen_irq_lateeoi(irq, 0);
		return;
	}
	/*
	 * For a spurious event xen_irq_lateeoi() calls smp_processor_id() and relies on the result
	 * staying true, without seeing to that itself. Preemption stays enabled: to delay the next
	 * event the function takes a spinlock, which sleeps on PREEMPT_RT.
	 */
	migrate_disable();
	xen_irq_lateeoi(irq, XEN_EOI_FLAG_SPURIOUS);
	migrate_enable();
}

void xbk_virt_mb(void)
{
	virt_mb();
}

void xbk_virt_rmb(void)
{
	virt_rmb();
}

void xbk_virt_wmb(void)
{
	virt_wmb();
}

bool xbk_device_is_registered(struct device *dev)
{
	return device_is_registered(dev);
}

bool xbk_device_is_bound(struct device *dev)
{
	guard(device)(dev);
	return dev->driver;
}

static DEFINE_MUTEX(transaction_lock);

void xbk_transaction_lock(void)
{
	mutex_lock(&transaction_lock);
}

void xbk_transaction_unlock(void)
{
	mutex_unlock(&transaction_lock);
}

bool xbk_xen_domain(void)
{
	return xen_domain();
}

int xbk_domctl(void *op)
{
	return privcmd_call(__HYPERVISOR_domctl, (unsigned long)op, 0, 0, 0, 0);
}
