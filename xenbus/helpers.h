/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Xen headers offer as inline functions and macros only. bindgen and
 * the C compiler read these same prototypes.
 */
#ifndef RBLKBACK_XENBUS_HELPERS_H
#define RBLKBACK_XENBUS_HELPERS_H

#include <linux/device.h>
#include <linux/types.h>
#include <xen/events.h>
#include <xen/grant_table.h>

/* Fills @op so that @gref of @domid is mapped at the kernel address of @page. */
void xbk_set_map_op(struct gnttab_map_grant_ref *op, struct page *page,
		    u32 flags, u32 gref, u16 domid);
/* Fills @op so that @handle, mapped at the address of @page, is unmapped. */
void xbk_set_unmap_op(struct gnttab_unmap_grant_ref *op, struct page *page,
		      u32 flags, u32 handle);

/*
 * Fills @op so that @len bytes at @offset of @gref of @domid are copied to the same
 * place of @page if @fetch, or from there.
 */
void xbk_set_copy_op(struct gnttab_copy *op, struct page *page, u16 offset,
		     u16 len, u32 gref, u16 domid, bool fetch);
/* The kernel address of @page. */
void *xbk_page_address(struct page *page);

/*
 * Copies the first @len bytes of @gref of @domid to @dest, kernel memory within one
 * page. Returns a GNTST_*. May sleep.
 */
int xbk_copy_from(void *dest, u16 len, u32 gref, u16 domid);
/* Does anybody but us refer to @page? */
bool xbk_page_is_used(struct page *page);

/* Sends an event through @port, which is ours. Any context. */
void xbk_notify(evtchn_port_t port);
/* Sends the EOI of the last event of @irq; @spurious: the event brought no work. Any context. */
void xbk_irq_lateeoi(unsigned int irq, bool spurious);

/* Barriers against a peer on another virtual CPU, whatever CONFIG_SMP says. */
void xbk_virt_mb(void);
void xbk_virt_rmb(void);
void xbk_virt_wmb(void);

/* Is @dev on its bus, or has somebody removed it already? */
bool xbk_device_is_registered(struct device *dev);

/* Does this kernel run on Xen at all? */
bool xbk_xen_domain(void);

#endif
