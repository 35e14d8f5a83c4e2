/*
 * One guest's vCPU as far as its balloon keeps it busy, with nothing else in the way: for each 256 pages it reads the config
 * space, kicks and sleeps until the ack, and writes `actual`, as Linux does (drivers/virtio/virtio_balloon.c). `strace` of
 * QEMU 11.1 with a guest of Linux 6.12 shows for each: GET_CONFIG, the kick, SET_CONFIG with NEED_REPLY, all of 16 bytes.
 *
 *   vcpu vhost|qtest|limit MEMORY_BYTES FIRST_PFN PAGES [DEVICE [SIZE DESC AVAIL USED BUFFER] x 2]
 *
 * fd 3 is the guest's memory. vhost: fd 4 is the vhost-user socket, 5 and 6 are kick and call of the inflate queue, 7 and 8 of
 * the deflate queue. qtest, limit: fd 4 takes commands of QEMU's qtest protocol and fd 5 has their answers; DEVICE is the
 * address of a virtio-mmio balloon. limit: no balloon, the pages of each 256 are removed here.
 *
 * Commands on stdin are `fill`, `inflate T` and `deflate T`, T being nanoseconds of CLOCK_MONOTONIC at which to begin. Each
 * is answered by lines: begin, last answer and end in nanoseconds; then microseconds to each ack, of each GET_CONFIG and of
 * each SET_CONFIG. An inflation ends when the host has its memory.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 3, SOCKET = 4, COMMANDS = 4, ANSWERS = 5 };
enum { PAGE = 4096, PFNS = 256, CONFIG_BYTES = 16, ACTUAL = 4, GET_CONFIG = 24, SET_CONFIG = 25 };
enum { VERSION = 1, NEED_REPLY = 8, MMIO_NOTIFY = 0x50, MMIO_CONFIG = 0x100, FILL_BYTES = 2 << 20 };
enum { SPIN_NS = 200000, NAP_NS = 20000, LOOK_NS = 500000, PATIENCE_SECONDS = 120 };

struct ring {
	unsigned size;
	uint64_t buffer_gpa;
	uint8_t *descriptor;
	_Atomic uint16_t *avail;
	_Atomic uint16_t *used;
	uint32_t *buffer;
	uint16_t next;
	int kick, call;
};

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t number;
		struct {
			uint32_t offset, size, flags;
			uint8_t bytes[CONFIG_BYTES];
		} config;
	};
} __attribute__((packed));

enum { HEADER = 12, CONFIG_PAYLOAD = 12 + CONFIG_BYTES };

static enum { VHOST, QTEST, LIMIT } mode;
static uint8_t *memory;
static uint64_t first_pfn, pages, device, full_bytes;
static uint32_t actual;
static uint8_t config[CONFIG_BYTES];
static struct ring rings[2];
/* Microseconds. */
static double *acks, *gets, *sets;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void write_all(int fd, const void *bytes, size_t length)
{
	if (write(fd, bytes, length) != (ssize_t)length)
		err(1, "write to fd %d", fd);
}

static void read_all(int fd, void *into, size_t length)
{
	for (size_t got = 0; got < length;) {
		ssize_t part = read(fd, (uint8_t *)into + got, length - got);
		if (part <= 0)
			err(1, "read from fd %d: %s", fd, part == 0 ? "it has ended" : "error");
		got += (size_t)part;
	}
}

/* Returns what QEMU answered behind its OK. */
static uint64_t qtest(const char *format, uint64_t a, uint64_t b, uint64_t c)
{
	char line[128];
	int length = snprintf(line, sizeof line, format, a, b, c);
	write_all(COMMANDS, line, (size_t)length);
	for (length = 0; length == 0 || line[length - 1] != '\n';) {
		ssize_t part = read(ANSWERS, line + length, sizeof line - 1 - (size_t)length);
		if (part <= 0)
			errx(1, "QEMU has ended");
		length += (int)part;
	}
	line[length] = 0;
	if (strncmp(line, "OK", 2) != 0)
		errx(1, "QEMU answers with %s", line);
	return strtoull(line + 2, NULL, 0);
}

/* A request of the config space and its reply, read as QEMU reads: header, then payload. */
static void ask(uint32_t request, uint32_t flags, const uint8_t *bytes, struct message *reply, uint32_t payload)
{
	struct message message = { request, flags, CONFIG_PAYLOAD, { 0 } };
	message.config.offset = message.config.flags = 0;
	message.config.size = CONFIG_BYTES;
	memcpy(message.config.bytes, bytes, CONFIG_BYTES);
	write_all(SOCKET, &message, HEADER + CONFIG_PAYLOAD);
	read_all(SOCKET, reply, HEADER);
	if (reply->request != request || reply->size != payload)
		errx(1, "request %u of %u bytes is the reply to %u", reply->request, reply->size, request);
	read_all(SOCKET, &reply->number, payload);
}

/* The guest looks whether its target is reached. QEMU asks for the whole config space by one that is all zero. */
static void read_config(void)
{
	static const uint8_t zeros[CONFIG_BYTES];
	struct message reply;
	if (mode == QTEST) {
		qtest("readl 0x%" PRIx64 "\n", device + MMIO_CONFIG, 0, 0);
		return;
	}
	ask(GET_CONFIG, VERSION, zeros, &reply, CONFIG_PAYLOAD);
	memcpy(config, reply.config.bytes, CONFIG_BYTES);
}

static void write_config(void)
{
	struct message reply;
	if (mode == QTEST) {
		qtest("writel 0x%" PRIx64 " 0x%" PRIx64 "\n", device + MMIO_CONFIG + ACTUAL, actual, 0);
		return;
	}
	memcpy(config + ACTUAL, &actual, sizeof actual);
	ask(SET_CONFIG, VERSION | NEED_REPLY, config, &reply, sizeof reply.number);
	if (reply.number != 0)
		errx(1, "SET_CONFIG is refused");
}

static void offer(struct ring *ring, uint64_t pfn)
{
	uint16_t head = mode == QTEST ? 0 : ring->next % ring->size;
	uint8_t *descriptor = ring->descriptor + 16 * head;
	uint32_t length = 4 * PFNS, none = 0;
	for (uint32_t n = 0; n < PFNS; n++)
		ring->buffer[n] = (uint32_t)pfn + n;
	memcpy(descriptor, &ring->buffer_gpa, 8);
	memcpy(descriptor + 8, &length, 4);
	memcpy(descriptor + 12, &none, 4);
	atomic_store(&ring->avail[2 + ring->next % ring->size], head);
	/* used_event: a call is wanted for this one. */
	atomic_store(&ring->avail[2 + ring->size], ring->next);
	ring->next++;
	atomic_store(&ring->avail[1], ring->next);
}

static void kick(struct ring *ring, uint64_t queue)
{
	const uint64_t one = 1;
	if (mode == QTEST)
		qtest("writel 0x%" PRIx64 " 0x%" PRIx64 "\n", device + MMIO_NOTIFY, queue, 0);
	else if (atomic_load(&ring->used[2 + 4 * ring->size]) == (uint16_t)(ring->next - 1))
		write_all(ring->kick, &one, sizeof one);
}

static void wait_ack(struct ring *ring)
{
	uint64_t calls, begun = mode == QTEST ? now() : 0;
	while (atomic_load(&ring->used[1]) != ring->next) {
		if (mode == VHOST)
			read_all(ring->call, &calls, sizeof calls);
		/* QEMU tells nobody of its interrupts here: as KVM polls for a halted vCPU, and then asleep between looks. */
		else if (now() - begun > SPIN_NS)
			nanosleep(&(struct timespec){ 0, NAP_NS }, NULL);
	}
}

static uint64_t allocated(void)
{
	struct stat status;
	if (fstat(MEMORY, &status) != 0)
		err(1, "fstat");
	return (uint64_t)status.st_blocks * 512;
}

static void remove_pages(uint64_t pfn)
{
	if (madvise(memory + pfn * PAGE, PFNS * PAGE, MADV_REMOVE) != 0)
		err(1, "madvise");
}

static void part(uint64_t queue, uint64_t n)
{
	struct ring *ring = &rings[queue];
	uint64_t begun = now(), read_by, acked;
	if (mode == LIMIT) {
		remove_pages(first_pfn + n * PFNS);
		acks[n] = (double)(now() - begun) / 1000;
		return;
	}
	read_config();
	gets[n] = (double)((read_by = now()) - begun) / 1000;
	offer(ring, first_pfn + n * PFNS);
	kick(ring, queue);
	wait_ack(ring);
	acks[n] = (double)((acked = now()) - read_by) / 1000;
	actual = queue == 0 ? actual + PFNS : actual - PFNS;
	write_config();
	sets[n] = (double)(now() - acked) / 1000;
}

static void print(const double *micros, uint64_t count)
{
	for (uint64_t n = 0; n < count; n++)
		printf(n == 0 ? "%.1f" : " %.1f", micros[n]);
	putchar('\n');
}

static void move(uint64_t queue, uint64_t at)
{
	const uint64_t parts = pages / PFNS;
	sleep_until(at);
	uint64_t begun = now();
	for (uint64_t n = 0; n < parts && !(mode == LIMIT && queue == 1); n++)
		part(queue, n);
	uint64_t answered = now();
	while (queue == 0 && allocated() > full_bytes - pages * PAGE)
		nanosleep(&(struct timespec){ 0, LOOK_NS }, NULL);
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", begun, answered, now());
	print(acks, parts);
	print(gets, mode == LIMIT ? 0 : parts);
	print(sets, mode == LIMIT ? 0 : parts);
}

/* Brings the pages into being and into the page tables of who has them as guest memory: this process, or QEMU. */
static void fill(void)
{
	const uint64_t begin = first_pfn * PAGE, end = begin + pages * PAGE;
	if (mode == VHOST)
		memset(memory + begin, 0xa5, end - begin);
	for (uint64_t at = begin; mode != VHOST && at < end; at += FILL_BYTES)
		qtest("memset 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 "\n", at,
		      end - at < FILL_BYTES ? end - at : FILL_BYTES, 0xa5);
	full_bytes = allocated();
	puts("0 0 0\n\n\n");
}

static void set_up(struct ring *ring, char **args)
{
	ring->size = (unsigned)strtoul(args[0], NULL, 0);
	ring->descriptor = memory + strtoull(args[1], NULL, 0);
	ring->avail = (_Atomic uint16_t *)(memory + strtoull(args[2], NULL, 0));
	ring->used = (_Atomic uint16_t *)(memory + strtoull(args[3], NULL, 0));
	ring->buffer_gpa = strtoull(args[4], NULL, 0);
	ring->buffer = (uint32_t *)(memory + ring->buffer_gpa);
	ring->next = atomic_load(&ring->used[1]);
	/* It comes into being before anything is counted. */
	ring->buffer[0] = 0;
}

static void make_blocking(int fd)
{
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) != 0)
		err(1, "fcntl of fd %d", fd);
}

int main(int count, char **args)
{
	char line[64];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mode = strcmp(args[1], "vhost") == 0 ? VHOST : strcmp(args[1], "qtest") == 0 ? QTEST : LIMIT;
	memory = mmap(NULL, strtoull(args[2], NULL, 0), PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	first_pfn = strtoull(args[3], NULL, 0);
	pages = strtoull(args[4], NULL, 0);
	acks = calloc(3 * pages / PFNS, sizeof *acks);
	if (acks == NULL)
		err(1, "calloc");
	gets = acks + pages / PFNS;
	sets = gets + pages / PFNS;
	if (mode != LIMIT && count == 16) {
		device = strtoull(args[5], NULL, 0);
		for (int queue = 0; queue < 2; queue++) {
			set_up(&rings[queue], args + 6 + 5 * queue);
			rings[queue].kick = 5 + 2 * queue;
			rings[queue].call = 6 + 2 * queue;
		}
	}
	if (mode == VHOST) {
		make_blocking(SOCKET);
		make_blocking(rings[0].call);
		make_blocking(rings[1].call);
	}
	while (fgets(line, sizeof line, stdin) != NULL) {
		/* One that is not answered ends this process, and the benchmark with it. */
		alarm(PATIENCE_SECONDS);
		if (strncmp(line, "fill", 4) == 0)
			fill();
		else
			move(strncmp(line, "deflate", 7) == 0 ? 1 : 0, strtoull(line + 7, NULL, 0));
		fflush(stdout);
		alarm(0);
	}
	return 0;
}
