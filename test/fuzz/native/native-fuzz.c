/*
 * The system calls of the native helper with whatever the dice say, under AddressSanitizer and UBSan.
 * Arguments: seed, seconds, cases (0: as many as there is time for). File descriptor 4 is told the case at hand.
 */
#define _GNU_SOURCE
#include "native.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_FD 4
#define STEPS 60
#define PAGES 64
#define SPARE_FDS 8
/* A call that blocks is a finding: nothing in the helper may. */
#define BLOCKED_SECONDS 20

#define REQUIRE(condition) ((condition) ? (void)0 : fail(#condition, __LINE__))

static uint32_t dice_state, case_seed;
static char folder[] = "/tmp/native-fuzz-XXXXXX";

static void fail(const char *condition, int line)
{
	fprintf(stderr, "native-fuzz: line %d: not so: %s (seed %u)\n", line, condition, case_seed);
	abort();
}

static void blocked(int signal)
{
	(void)signal;
	fprintf(stderr, "native-fuzz: blocked for %d s (seed %u), after %.1f s of work in all, here:\n", BLOCKED_SECONDS,
		case_seed, (double)clock() / CLOCKS_PER_SEC);
	__sanitizer_print_stack_trace();
	abort();
}

/* Mulberry32, as test/fuzz/dice.ts. */
static uint32_t word(void)
{
	uint32_t value;

	dice_state += 0x6d2b79f5;
	value = (dice_state ^ (dice_state >> 15)) * (1 | dice_state);
	value = (value + (value ^ (value >> 7)) * (61 | value)) ^ value;
	return value ^ (value >> 14);
}

static uint32_t below(uint32_t end)
{
	return end > 0 ? word() % end : 0;
}

static int chance(uint32_t percent)
{
	return below(100) < percent;
}

static size_t open_fds(void)
{
	DIR *entries = opendir("/proc/self/fd");
	size_t count = 0;

	while (readdir(entries) != NULL)
		count++;
	closedir(entries);
	return count;
}

static void close_fds(const int32_t *fds, int32_t count)
{
	REQUIRE(count >= 0 && count <= BD_MAX_FDS);
	for (int32_t n = 0; n < count; n++)
		REQUIRE(close(fds[n]) == 0);
}

/* --- a stream whose bytes count up, so that what is lost or comes twice shows --- */

struct line {
	int ends[2];
	/* Bytes put in and taken out. */
	uint32_t sent, taken;
	int spare[SPARE_FDS];
	int file;
	/* The kernel sends the pages of the file themselves, so none is written twice. */
	off_t file_end;
};

static uint8_t pattern(uint32_t at)
{
	return (uint8_t)(at * 31 >> 2);
}

static void fill(uint8_t *bytes, size_t length, uint32_t from)
{
	for (size_t n = 0; n < length; n++)
		bytes[n] = pattern(from + (uint32_t)n);
}

static void require_bytes(const uint8_t *bytes, size_t length, uint32_t from)
{
	for (size_t n = 0; n < length; n++)
		REQUIRE(bytes[n] == pattern(from + (uint32_t)n));
}

static int some_fd(const struct line *line)
{
	return chance(97) ? line->spare[below(SPARE_FDS)] : chance(50) ? -1 : 1000;
}

static void send_some(struct line *line)
{
	size_t length = 1 + below(chance(95) ? 200 : 100000);
	size_t count = chance(60) ? 0 : below(chance(90) ? 10 : BD_MAX_FDS + 4);
	uint8_t *bytes = malloc(length);
	int32_t *fds = malloc(count * sizeof(*fds) + 1);
	ssize_t sent;

	fill(bytes, length, line->sent);
	for (size_t n = 0; n < count; n++)
		fds[n] = some_fd(line);
	sent = bd_send(line->ends[0], bytes, length, fds, count);
	REQUIRE(sent != 0 && sent <= (ssize_t)length);
	REQUIRE(count <= BD_MAX_FDS || sent == -EINVAL);
	if (sent > 0)
		line->sent += (uint32_t)sent;
	free(bytes);
	free(fds);
}

/* Control data that bd_send() does not make: several headers, of several kinds, also empty ones. */
static void send_odd_control(struct line *line)
{
	union {
		char bytes[4096];
		struct cmsghdr align;
	} control;
	uint8_t bytes[16];
	struct iovec part = { .iov_base = bytes, .iov_len = 1 + below(sizeof(bytes)) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes };
	ssize_t sent;

	memset(&control, 0, sizeof(control));
	for (uint32_t headers = below(4); headers > 0; headers--) {
		struct cmsghdr *header = (struct cmsghdr *)(control.bytes + message.msg_controllen);
		int credentials = chance(30);
		uint32_t count = below(chance(90) ? 5 : 120);
		struct ucred self = { .pid = getpid(), .uid = getuid(), .gid = getgid() };

		header->cmsg_level = chance(95) ? SOL_SOCKET : (int)below(50);
		header->cmsg_type = credentials ? SCM_CREDENTIALS : chance(95) ? SCM_RIGHTS : (int)below(10);
		if (credentials) {
			memcpy(CMSG_DATA(header), &self, sizeof(self));
		} else {
			for (uint32_t n = 0; n < count; n++) {
				int fd = some_fd(line);

				memcpy(CMSG_DATA(header) + n * sizeof(fd), &fd, sizeof(fd));
			}
		}
		header->cmsg_len = CMSG_LEN(credentials ? sizeof(self) : count * sizeof(int));
		message.msg_controllen += CMSG_ALIGN(header->cmsg_len);
	}
	fill(bytes, part.iov_len, line->sent);
	sent = sendmsg(line->ends[0], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent > 0)
		line->sent += (uint32_t)sent;
}

static void send_file(struct line *line)
{
	size_t length = 1 + below(chance(90) ? 300 : 60000);
	off_t at = line->file_end + below(1000);
	uint8_t *bytes = malloc(length);
	ssize_t sent;

	fill(bytes, length, line->sent);
	REQUIRE(pwrite(line->file, bytes, length, at) == (ssize_t)length);
	line->file_end = at + (off_t)length;
	REQUIRE(bd_set_offset(line->file, at) == at);
	sent = bd_send_file(line->ends[0], line->file, length);
	REQUIRE(sent <= (ssize_t)length);
	REQUIRE(bd_offset(line->file) == at + (sent > 0 ? sent : 0));
	if (sent > 0)
		line->sent += (uint32_t)sent;
	free(bytes);
}

static void receive_some(struct line *line)
{
	size_t length = 1 + below(chance(95) ? 300 : 100000);
	uint8_t *bytes = malloc(length);
	int32_t *fds = malloc(BD_MAX_FDS * sizeof(*fds));
	int32_t count = -1;
	uint32_t before = line->taken;
	ssize_t got = bd_receive(line->ends[1], bytes, length, fds, &count);

	REQUIRE(got <= (ssize_t)length);
	if (got > 0) {
		require_bytes(bytes, (size_t)got, before);
		line->taken += (uint32_t)got;
	}
	/* Cut control data took its bytes along: how many, only the next ones tell. */
	if (got == -EMFILE) {
		REQUIRE(count == 0);
		line->taken = line->sent;
		while (recv(line->ends[1], bytes, length, MSG_DONTWAIT) > 0)
			;
	}
	close_fds(fds, count);
	free(bytes);
	free(fds);
}

static void peek_some(struct line *line)
{
	uint32_t there = line->sent - line->taken;
	size_t length = 1 + below(5000);
	size_t at = chance(50) ? 0 : below(there + 4), looked;
	uint8_t *bytes = malloc(length);
	int32_t *fds = malloc(BD_MAX_FDS * sizeof(*fds));
	int32_t count = -1;
	ssize_t got;

	REQUIRE(bd_set_peek_offset(line->ends[1], (int)at) == 0);
	got = bd_peek(line->ends[1], bytes, length, fds, &count);
	looked = at + (got > 0 ? (size_t)got : 0);
	REQUIRE(got <= (ssize_t)length);
	if (got > 0) {
		REQUIRE(at + (size_t)got <= there);
		require_bytes(bytes, (size_t)got, line->taken + (uint32_t)at);
	} else if (got != -EMFILE) {
		REQUIRE(at >= there);
	}
	close_fds(fds, count);
	if (got != -EMFILE)
		REQUIRE(bd_peek_offset(line->ends[1]) == (int)looked);
	free(bytes);
	free(fds);
}

static void consume_some(struct line *line)
{
	uint32_t there = line->sent - line->taken;
	uint32_t length = below(there + 1);

	/* Builds before 0.2 began from so far behind. */
	REQUIRE(bd_set_peek_offset(line->ends[1], 1 << 20) == 0);
	REQUIRE(bd_consume(line->ends[1], length) == 0);
	line->taken += length;
	REQUIRE(bd_peek_offset(line->ends[1]) == (1 << 20) - (int)length);
	if (chance(5)) {
		/* More than there is: all of that is taken, and the rest stays counted. */
		there -= length;
		REQUIRE(bd_set_peek_offset(line->ends[1], (int)there + 10) == 0);
		REQUIRE(bd_consume(line->ends[1], there + 10) == -EAGAIN);
		REQUIRE(bd_peek_offset(line->ends[1]) == 10);
		line->taken = line->sent;
	}
}

static void ask(const struct line *line)
{
	int fds[] = { line->ends[0], line->ends[1], line->file, -1, 1000, line->spare[below(SPARE_FDS)] };
	int fd = fds[below(sizeof(fds) / sizeof(*fds))], on = 1, copy;

	bd_is_listening(fd);
	bd_peer_pid(fd);
	bd_unread(fd);
	bd_hung_up(fd);
	bd_peek_offset(fd);
	REQUIRE(bd_pending_error(fd) > 0);
	bd_set_nonblocking(line->spare[0]);
	copy = bd_duplicate(fd);
	REQUIRE(copy < 0 ? copy == -EBADF : bd_close(copy) == 0);
	if (chance(10))
		setsockopt(line->ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
}

static void talk(void)
{
	struct line line = { .sent = word() };
	int pipes[2];

	line.taken = line.sent;
	REQUIRE(bd_socketpair(line.ends) == 0);
	line.file = bd_memfd("file", 4096, 0);
	REQUIRE(pipe2(pipes, O_CLOEXEC) == 0);
	for (int n = 0; n < SPARE_FDS; n++)
		line.spare[n] = n % 2 == 0 ? bd_eventfd(0) : bd_duplicate(chance(50) ? pipes[0] : line.ends[1]);
	for (int n = 0; n < STEPS; n++) {
		static void (*const acts[])(struct line *) = { send_some, send_odd_control, send_file,
							       receive_some, peek_some, consume_some };

		if (chance(90))
			acts[below(sizeof(acts) / sizeof(*acts))](&line);
		else
			ask(&line);
	}
	if (chance(30)) {
		close(line.ends[0]);
		line.ends[0] = bd_eventfd(0);
		REQUIRE(bd_hung_up(line.ends[1]) == 1);
		peek_some(&line);
	}
	close(line.ends[0]);
	close(line.ends[1]);
	close(line.file);
	close(pipes[0]);
	close(pipes[1]);
	for (int n = 0; n < SPARE_FDS; n++)
		close(line.spare[n]);
}

/* --- mappings and discards --- */

static void map_oddly(int fd, off_t size)
{
	static const size_t lengths[] = { 0, 1, 4095, 4096, 8192, SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 47 };
	struct bd_mapping mapping;
	off_t offset = chance(50) ? 4096 * (off_t)below(PAGES + 4) : (off_t)below(3) << below(62);
	size_t length = chance(50) ? 1 + below(PAGES * 4096) : lengths[below(sizeof(lengths) / sizeof(*lengths))];

	if (bd_map(&mapping, fd, offset, length) < 0)
		return;
	REQUIRE(offset + (off_t)length <= size);
	mapping.address[0] = 1;
	mapping.address[length - 1] = 1;
	REQUIRE(bd_unmap(&mapping) == 0);
}

static void discard(void)
{
	size_t page = bd_page_bytes(), count = below(chance(90) ? 20 : 2500), done;
	int fd = bd_memfd("guest", (off_t)(PAGES * page), 0), pidfd = bd_pidfd_self(), error = -1;
	enum bd_discard_method method = (enum bd_discard_method)below(3);
	double *ranges = malloc((2 * count + 1) * sizeof(*ranges));
	uint8_t gone[PAGES] = { 0 }, present[PAGES];
	struct bd_mapping mapping;
	size_t skip = below(4);

	REQUIRE(fd >= 0 && pidfd >= 0);
	map_oddly(fd, (off_t)(PAGES * page));
	map_oddly(pidfd, 0);
	REQUIRE(bd_map(&mapping, fd, (off_t)(skip * page), (PAGES - skip) * page) == 0);
	memset(mapping.address, 0xa5, mapping.length);
	for (size_t n = 0; n < count; n++) {
		size_t first = below((uint32_t)(PAGES - skip));
		size_t pages = below((uint32_t)(PAGES - skip - first + 1));
		int odd = chance(3);

		ranges[2 * n] = (double)(first * page + (odd && pages > 0 ? below((uint32_t)page) : 0));
		ranges[2 * n + 1] = (double)(pages * page - (odd && pages > 0 ? below((uint32_t)page) + page / 2 : 0));
		if (ranges[2 * n + 1] < 0 || ranges[2 * n] + ranges[2 * n + 1] > (double)mapping.length)
			ranges[2 * n] = ranges[2 * n + 1] = 0;
	}
	if (chance(5))
		REQUIRE(bd_discard_vector(&mapping, chance(50) ? -1 : fd, ranges, count) <= count);
	else
		done = bd_discard(&mapping, method == BD_PROCESS_MADVISE ? pidfd : fd, ranges, count, method, &error),
		REQUIRE(done <= count), REQUIRE((error == 0) == (done == count)), REQUIRE(error >= 0);
	for (size_t n = 0; n < count; n++)
		for (size_t at = (size_t)ranges[2 * n] / page; at * page < ranges[2 * n] + ranges[2 * n + 1]; at++)
			gone[at] = 1;
	/* What is in none of the ranges is there, by the file and without filling its holes. */
	for (size_t at = 0; at < PAGES - skip; at++) {
		REQUIRE(pread(fd, present + at, 1, (off_t)((at + skip) * page)) == 1);
		REQUIRE(gone[at] || present[at] == 0xa5);
	}
	REQUIRE(bd_punch(fd, 0, (off_t)(page * (1 + below(4)))) == 0);
	REQUIRE(bd_unmap(&mapping) == 0);
	free(ranges);
	close(fd);
	close(pidfd);
}

/* --- eventfds: nothing may block, whatever the other side made of them --- */

/* Closing one that met a write that blocks takes the kernel milliseconds. */
static struct bd_signaller signaller;

/* The first signal opens what all signals share. */
static void open_signaller(void)
{
	memset(&signaller, 0, sizeof(signaller));
	REQUIRE(bd_eventfd_signal(&signaller, -1) == 0);
}

static void events(void)
{
	int pipes[2], fds[5];

	REQUIRE(pipe2(pipes, O_CLOEXEC) == 0);
	fds[0] = bd_eventfd(word());
	fds[1] = eventfd(0, EFD_CLOEXEC);
	fds[2] = pipes[chance(50)];
	fds[3] = eventfd(0, EFD_CLOEXEC | (chance(50) ? EFD_SEMAPHORE : 0));
	fds[4] = chance(50) ? -1 : 1000;
	for (int n = 0; n < STEPS; n++) {
		int fd = fds[below(5)];
		uint64_t much = UINT64_MAX - 1 - below(3);

		switch (below(4)) {
		case 0:
			REQUIRE(bd_eventfd_drain(fd) >= 0);
			break;
		case 1:
			if (fd == fds[1] && bd_eventfd_drain(fd) >= 0)
				REQUIRE(write(fd, &much, sizeof(much)) == sizeof(much));
			break;
		default: {
			int raised = bd_eventfd_signal(&signaller, fd);

			REQUIRE(raised == 0 || raised == 1);
		}
		}
	}
	if (chance(1)) {
		bd_signaller_close(&signaller);
		open_signaller();
	}
	for (int n = 0; n < 4; n++)
		if (fds[n] != pipes[0] && fds[n] != pipes[1])
			close(fds[n]);
	close(pipes[0]);
	close(pipes[1]);
}

/* --- paths --- */

static char *some_path(void)
{
	size_t length = chance(70) ? below(30) : below(140);
	char *path = malloc(strlen(folder) + length + 3);

	if (chance(20)) {
		strcpy(path, chance(50) ? "@" : "");
	} else {
		strcpy(path, folder);
		strcat(path, "/");
	}
	for (size_t n = strlen(path), end = n + (chance(90) ? length : 0); n < end; n++)
		path[n] = "abcd"[below(4)], path[n + 1] = 0;
	return path;
}

static void paths(void)
{
	char *path = some_path();
	size_t size = 1 + below(110);
	char *bound = malloc(size);
	int listener = chance(50) ? bd_listen(path, 0600) : bd_datagram_bind(path);
	int client = chance(50) ? bd_connect(path) : bd_datagram_connect(path);

	if (listener >= 0) {
		int length = bd_bound_path(listener, bound, size), accepted = bd_accept(listener);

		REQUIRE(length < 0 || ((size_t)length < size && strlen(bound) == (size_t)length));
		if (accepted >= 0)
			close(accepted);
		close(listener);
		/* What was left behind is replaced. */
		if (chance(50) && path[0] == '/' && (listener = bd_listen(path, 0600)) >= 0)
			close(listener);
		/* Only datagram sockets take a leading @ for an abstract name. */
		unlink(path);
	}
	if (client >= 0)
		close(client);
	free(bound);
	free(path);
}

int main(int argc, char **argv)
{
	uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
	double seconds = argc > 2 ? atof(argv[2]) : 1;
	uint32_t cases = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
	static void (*const kinds[])(void) = { talk, talk, discard, events, paths };
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	signal(SIGALRM, blocked);
	open_signaller();
	/* Some paths are relative. */
	if (mkdtemp(folder) == NULL || chdir(folder) < 0)
		return 2;
	for (uint32_t n = 0; cases == 0 || n < cases; n++) {
		uint32_t progress[2] = { seed + n, n + 1 };
		size_t before = open_fds();

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (cases == 0 && (double)(now.tv_sec - start.tv_sec) >= seconds)
			break;
		/* Nobody listens where this was not started by the fuzzer's runner. */
		(void)!pwrite(PROGRESS_FD, progress, sizeof(progress), 0);
		case_seed = dice_state = seed + n;
		alarm(BLOCKED_SECONDS);
		kinds[below(sizeof(kinds) / sizeof(*kinds))]();
		REQUIRE(open_fds() == before);
	}
	rmdir(folder);
	return 0;
}
