/* host.h - which machine this is. Any thread. */
#ifndef OS_HOST_H
#define OS_HOST_H

#include <stdbool.h>

/** The kernel's id of this boot, "xxxxxxxx-xxxx-...": the same in all containers of a machine, another
 * one after a restart. False where the kernel does not say; `text` is "" then. */
bool os_boot_id(char text[37]);

#endif /* OS_HOST_H */
