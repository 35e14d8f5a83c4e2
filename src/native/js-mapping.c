/*
 * Mappings, as JavaScript sees them: a mapping is an external, and its memory is copied or looked at.
 */
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KIND_MAPPING 0x6d617070u

struct mapping *glue_mapping(struct call *call, size_t index)
{
	struct mapping *mapping = glue_handle(call, index, KIND_MAPPING);

	if (mapping == NULL || mapping->memory.address == NULL) {
		call->bad = 1;
		return NULL;
	}
	return mapping;
}

struct bd_mapping *glue_memory(struct call *call, size_t index)
{
	struct mapping *mapping = glue_mapping(call, index);

	return mapping == NULL ? NULL : &mapping->memory;
}

static int inside(const struct bd_mapping *mapping, uint64_t offset, uint64_t length)
{
	return offset <= mapping->length && length <= mapping->length - offset;
}

int glue_ranges_inside(const struct bd_mapping *mapping, const double *ranges, size_t count)
{
	size_t n;

	for (n = 0; n < count; n++) {
		double offset = ranges[2 * n], length = ranges[2 * n + 1];

		if (!(offset >= 0) || !(length >= 0) || offset > (double)mapping->length ||
		    length > (double)mapping->length - offset)
			return 0;
	}
	return 1;
}

static void finalize_mapping(napi_env env, void *data, void *hint)
{
	struct mapping *mapping = data;

	(void)env;
	(void)hint;
	/* At the end of the environment a discard may still be at work; what it works on stays. */
	if (mapping->users > 0)
		return;
	if (mapping->memory.address != NULL)
		bd_unmap(&mapping->memory);
	free(mapping);
}

/* map(fd, offset, length): an external, or a negative errno. */
NATIVE(map)
{
	napi_value result = NULL;
	struct mapping *mapping;
	int error;

	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t length = glue_number(&call, 2, MAX_SAFE_INTEGER);

	if (call.bad)
		return glue_result(&call, 0);
	mapping = calloc(1, sizeof(*mapping));
	if (mapping == NULL)
		return glue_result(&call, -ENOMEM);
	mapping->handle.kind = KIND_MAPPING;
	error = bd_map(&mapping->memory, fd, offset, (size_t)length);
	if (error < 0) {
		free(mapping);
		return glue_result(&call, error);
	}
	if (napi_create_external(env, mapping, finalize_mapping, NULL, &result) != napi_ok) {
		finalize_mapping(env, mapping, NULL);
		return glue_result(&call, -ENOMEM);
	}
	return result;
}

NATIVE(unmap)
{
	BEGIN;
	struct mapping *mapping = glue_mapping(&call, 0);

	if (call.bad)
		return glue_result(&call, 0);
	return glue_result(&call, mapping->users > 0 ? -EBUSY : bd_unmap(&mapping->memory));
}

/*
 * view(mapping, offset, length): an ArrayBuffer over the mapping itself. The caller keeps the mapping's handle
 * alive as long as the view, and detaches the view before unmap(). Views may overlap: V8 keeps no table of
 * addresses for buffers that are not shared.
 */
NATIVE(view)
{
	napi_value result = NULL;

	BEGIN;
	struct bd_mapping *mapping = glue_memory(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t length = glue_number(&call, 2, MAX_SAFE_INTEGER);

	if (call.bad || length == 0 || length > 1 << 30 || !inside(mapping, (uint64_t)offset, (uint64_t)length)) {
		call.bad = 1;
		return glue_result(&call, 0);
	}
	if (napi_create_external_arraybuffer(env, mapping->address + offset, (size_t)length, NULL, NULL, &result) !=
	    napi_ok)
		return glue_result(&call, -ENOMEM);
	return result;
}

NATIVE(detach)
{
	bool detached = false;

	BEGIN;
	napi_is_detached_arraybuffer(env, call.values[0], &detached);
	if (!detached && napi_detach_arraybuffer(env, call.values[0]) != napi_ok)
		call.bad = 1;
	return glue_result(&call, 0);
}

/* faults(mapping): how many of its pages could not be had, 0 when it is unmapped. */
NATIVE(faults)
{
	BEGIN;
	struct mapping *mapping = glue_handle(&call, 0, KIND_MAPPING);

	return glue_result(&call, call.bad ? 0 : bd_faults(&mapping->memory));
}

/* allFaults(): the count over all mappings as memory that changes with it. */
NATIVE(allFaults)
{
	napi_value result = NULL;

	(void)info;
	napi_create_external_arraybuffer(env, bd_all_faults(), sizeof(uint32_t), NULL, NULL, &result);
	return result;
}

/* read(mapping, at, bytes, offset, length) and write(the same) */
static napi_value copy(napi_env env, napi_callback_info info, int out)
{
	size_t length;

	BEGIN;
	struct bd_mapping *mapping = glue_memory(&call, 0);
	uint64_t at = (uint64_t)glue_number(&call, 1, MAX_SAFE_INTEGER);
	uint8_t *bytes = glue_bytes(&call, 2, &length);

	call.bad |= call.bad || !inside(mapping, at, length);
	if (!call.bad)
		memcpy(out ? bytes : mapping->address + at, out ? mapping->address + at : bytes, length);
	return glue_result(&call, 0);
}

NATIVE(read)
{
	return copy(env, info, 1);
}

NATIVE(write)
{
	return copy(env, info, 0);
}

napi_status glue_export_mapping(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(map), EXPORT(unmap), EXPORT(view), EXPORT(detach), EXPORT(faults), EXPORT(allFaults),
		EXPORT(read), EXPORT(write),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
