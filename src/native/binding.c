/*
 * The addon: adds the functions of each file that JavaScript calls. Those files are glue to native.h, and nothing else.
 * Results are passed on as numbers, negative ones being -errno; src/os turns those into errors.
 */
#include "glue.h"

NAPI_MODULE_INIT()
{
	static napi_status (*const files[])(napi_env, napi_value) = {
		glue_export_socket,  glue_export_fd,	glue_export_mapping, glue_export_discard,
		glue_export_event,   glue_export_watch, glue_export_behind,  glue_export_writer,
		glue_export_resident,
	};
	size_t n;

	for (n = 0; n < sizeof(files) / sizeof(files[0]); n++)
		if (files[n](env, exports) != napi_ok)
			return NULL;
	return exports;
}
