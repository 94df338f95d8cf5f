/*
 * row.h - one row of a pane, for pane.c alone: filled from what the cluster knows of an instance.
 *
 * Order matters: all rows are filled and what they know is noted, then lenders are found, then prices are filled.
 */
#ifndef SCHED_ROW_H
#define SCHED_ROW_H

#include "sched/pane.h"

/** All but what is a matter of time or of the request, and the price. */
void row_fill(struct pane *pane, const struct cluster *cluster, uint32_t row);

/** Bits of enum pane_knows. */
uint8_t row_knows(const struct cost *cost);

/** True: somebody lends now who did not. */
bool row_find_lenders(struct pane *pane);

/** What work costs there, and what follows from that. */
void row_fill_price(struct pane *pane, const struct cluster *cluster, uint32_t row);

/** A row was filled anew: what it knows, its price, and those of the rows that borrow from it. */
void row_learn(struct pane *pane, const struct cluster *cluster, uint32_t row);

void row_set_role(struct pane *pane, uint32_t row, uint32_t role);

/** Its number in mc_view.kinds, while nothing comes to it. */
uint8_t row_alike(const struct pane *pane, uint32_t row);

/** Of its tick, by the pane's epoch. */
void row_set_shares(struct pane *pane, uint32_t row);

#endif /* SCHED_ROW_H */
