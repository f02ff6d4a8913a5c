// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for what compat.rs has of its own before Linux 7.3; see helpers.h. They are not compiled
 * for later kernels.
 */
#include <linux/spinlock.h>

#include "src/sys/helpers.h"

unsigned long xbk_spin_lock(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool xbk_spin_trylock(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void xbk_spin_unlock(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}
