/* The clock that goes on over processes and while the host is suspended, and that nobody sets. */
#include "native.h"

#include <time.h>

int64_t bd_boot_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_BOOTTIME, &time);
	return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}
