/*
 * Eventfds and the boot clock, as JavaScript sees them.
 */
#include "glue.h"

#include <stdlib.h>

static void finalize_signaller(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	bd_signaller_close(data);
	free(data);
}

NATIVE(eventfd)
{
	BEGIN;
	int64_t initial = glue_number(&call, 0, UINT32_MAX);

	return glue_result(&call, call.bad ? 0 : bd_eventfd((unsigned int)initial));
}

NATIVE(signal)
{
	void *signaller = NULL;

	BEGIN;
	int fd = glue_fd(&call, 0);

	call.bad |= napi_get_instance_data(env, &signaller) != napi_ok || signaller == NULL;
	return glue_result(&call, call.bad ? 0 : bd_eventfd_signal(signaller, fd));
}

NATIVE(drain)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_eventfd_drain(fd));
}

NATIVE(bootTime)
{
	BEGIN;
	return glue_result(&call, bd_boot_us());
}

napi_status glue_export_event(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(eventfd), EXPORT(signal), EXPORT(drain), EXPORT(bootTime),
	};
	struct bd_signaller *signaller = calloc(1, sizeof(*signaller));

	if (signaller == NULL)
		return napi_generic_failure;
	if (napi_set_instance_data(env, signaller, finalize_signaller, NULL) != napi_ok) {
		free(signaller);
		return napi_generic_failure;
	}
	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
