/* host.h - which machine this is, and what it grants. Any thread. */
#ifndef OS_HOST_H
#define OS_HOST_H

#include <stdbool.h>
#include <stdint.h>

/** The kernel's id of this boot, "xxxxxxxx-xxxx-...": the same in all containers of a machine, another
 * one after a restart. False where the kernel does not say; `text` is "" then. */
bool os_boot_id(char text[37]);

/** Raise how many descriptors this process may have as far as the system lets it; how many these are. */
uint64_t os_descriptors_raise(void);

#endif /* OS_HOST_H */
