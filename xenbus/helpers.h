/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions for what the Xen headers declare as inline functions and macros only. bindgen and the C
 * compiler read the same prototypes.
 */
#ifndef RBLKBACK_XENBUS_HELPERS_H
#define RBLKBACK_XENBUS_HELPERS_H

#include <linux/device.h>
#include <linux/types.h>
#include <xen/events.h>
#include <xen/grant_table.h>

/* Fills @op: maps the frame that @domid grants with @gref at the kernel address of @page. */
void xbk_set_map_op(struct gnttab_map_grant_ref *op, struct page *page,
		    u32 flags, u32 gref, u16 domid);
/* Fills @op: unmaps @handle, which is mapped at the kernel address of @page. */
void xbk_set_unmap_op(struct gnttab_unmap_grant_ref *op, struct page *page,
		      u32 flags, u32 handle);

/*
 * Fills @op, all of it: copies @len bytes at @offset of the frame that @domid grants with @gref to
 * the same offset of @page if @from_frame, otherwise from @page to the frame.
 */
void xbk_set_copy_op(struct gnttab_copy *op, struct page *page, u16 offset,
		     u16 len, u32 gref, u16 domid, bool from_frame);
/* Returns the kernel address of @page. */
void *xbk_page_address(struct page *page);

/*
 * Copies the first @len bytes of the frame that @domid grants with @gref to @dest, which is kernel
 * memory within one page. Returns a GNTST_* status. Sleeps while Xen pages the frame in.
 */
int xbk_copy_from(void *dest, u16 len, u32 gref, u16 domid);
/* Returns whether there is a reference to @page besides the caller's. */
bool xbk_page_is_used(struct page *page);

/* Sends an event through the local port @port. Context: any. */
void xbk_notify(evtchn_port_t port);
/*
 * Stores in @domain and @remote to which port of which domain the local port @port is connected,
 * and returns 1. Returns 0 and stores nothing if it is not connected, a negative value if Xen does
 * not tell, as of a number that no port of this domain has. Context: any.
 */
int xbk_evtchn_peer(evtchn_port_t port, domid_t *domain, evtchn_port_t *remote);
/* Closes the local port @port, which no irq is bound to. Context: any. */
void xbk_evtchn_close(evtchn_port_t port);
/*
 * Sends the EOI of the last event of @irq. @spurious says that the event brought no work.
 * Context: any in which a spinlock may be taken.
 */
void xbk_irq_lateeoi(unsigned int irq, bool spurious);

/* Barriers towards the other domain. They are not compiled out without CONFIG_SMP. */
void xbk_virt_mb(void);
void xbk_virt_rmb(void);
void xbk_virt_wmb(void);

/* Returns whether @dev is on its bus. */
bool xbk_device_is_registered(struct device *dev);
/*
 * Returns whether a driver is bound to @dev, when those that are being tried now have been tried. Sleeps.
 */
bool xbk_device_is_bound(struct device *dev);

/*
 * One transaction at a time: xenstored allows an unprivileged domain few of them. Sleeps.
 */
void xbk_transaction_lock(void);
void xbk_transaction_unlock(void);

/* Returns whether this kernel runs on Xen. */
bool xbk_xen_domain(void);

/*
 * Has Xen execute the struct xen_domctl at @op, which it may write to. Returns what Xen returns: 0 or
 * a negative error number. The kernel has no header for the operations, which are the toolstack's.
 */
int xbk_domctl(void *op);

#endif
