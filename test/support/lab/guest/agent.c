/*
 * The guest's first process: mounts, loads the balloon driver unless the command line says balloon=off, and then
 * does what the host asks over the first virtio-serial port. As first process it is never killed for memory.
 * As any other process, under an init system, it only does what the host asks.
 *
 * Once up it says "ready\n". A request is "VERB [NUMBER [NUMBER]]\n"; `sh` takes the length of its command, whose
 * bytes follow. The answer is "STATUS LENGTH\n" and LENGTH bytes. One request at a time.
 *
 *   sh LENGTH           runs a shell command; STATUS is its exit code (128 + signal), the bytes are its output
 *   hold MIB SEED       takes anonymous memory and fills each page with a pattern of its own
 *   verify              answers with the number of held pages that are not as they were written
 *   churn PAGES SEED    writes a new pattern to PAGES held pages picked by SEED; answers with how many were not as
 *                       they were written before that
 *   renew MIB SEED      MIB times: picks a MiB of the held memory by SEED, looks whether it is as it was written, gives
 *                       it back to the kernel and takes and fills a new one; answers with how many pages were not
 *   drop                gives the held memory back
 *   eat MIB             takes, touches and gives back memory in a process of its own (STATUS 137: it was killed)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / sizeof(uint64_t))
#define PAGES_PER_MIB ((1 << 20) / PAGE)
#define OUTPUT_MAX (4 << 20)

static int port;
static uint64_t *held;      /* WORDS a page */
static uint64_t *seeds;     /* one a held page: its pattern */
static uint64_t held_pages;

static void write_all(const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t written = write(port, bytes, length);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			exit(1);
		bytes += written;
		length -= written;
	}
}

static void answer(int status, const char *bytes, size_t length)
{
	char head[48];
	write_all(head, sprintf(head, "%d %zu\n", status, length));
	write_all(bytes, length);
}

static void answer_count(uint64_t count)
{
	char text[24];
	answer(0, text, sprintf(text, "%" PRIu64, count));
}

static void answer_error(const char *what)
{
	char text[256];
	answer(1, text, snprintf(text, sizeof text, "%s: %s", what, strerror(errno)));
}

static void read_all(char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t got = read(port, bytes, length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			exit(1);
		if (got == 0) { /* nobody has the host's end open */
			usleep(10000);
			continue;
		}
		bytes += got;
		length -= got;
	}
}

/* Waits for this child; orphans that became ours are reaped meanwhile. */
static int exit_status(pid_t child)
{
	int status;
	pid_t ended;
	do
		ended = wait(&status);
	while (ended != child && (ended > 0 || errno == EINTR));
	if (ended != child)
		return 255;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run_shell(size_t length)
{
	static char output[OUTPUT_MAX];
	size_t kept = 0;
	int ends[2];
	char *command = malloc(length + 1);
	if (command == NULL || pipe2(ends, O_CLOEXEC) < 0)
		exit(1);
	read_all(command, length);
	command[length] = 0;
	pid_t child = fork();
	if (child < 0) {
		answer_error("fork");
	} else if (child == 0) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	} else {
		static char rest[PAGE];
		ssize_t got;
		close(ends[1]);
		while ((got = kept < OUTPUT_MAX ? read(ends[0], output + kept, OUTPUT_MAX - kept)
						: read(ends[0], rest, sizeof rest)) > 0)
			if (kept < OUTPUT_MAX)
				kept += got;
		answer(exit_status(child), output, kept);
	}
	close(ends[0]);
	free(command);
}

static uint64_t mix(uint64_t state)
{
	state ^= state >> 30;
	state *= 0xbf58476d1ce4e5b9u;
	state ^= state >> 27;
	state *= 0x94d049bb133111ebu;
	return state ^ state >> 31;
}

static void fill(uint64_t page, uint64_t seed)
{
	uint64_t *word = held + page * WORDS;
	uint64_t state = mix(page + seed * 0x9e3779b97f4a7c15u) | 1;
	seeds[page] = seed;
	for (size_t i = 0; i < WORDS; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		word[i] = state;
	}
}

static int is_intact(uint64_t page)
{
	const uint64_t *word = held + page * WORDS;
	uint64_t state = mix(page + seeds[page] * 0x9e3779b97f4a7c15u) | 1;
	for (size_t i = 0; i < WORDS; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		if (word[i] != state)
			return 0;
	}
	return 1;
}

static void *anonymous(uint64_t bytes)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void drop(void)
{
	if (held_pages > 0) {
		munmap(held, held_pages * PAGE);
		munmap(seeds, held_pages * sizeof *seeds);
	}
	held_pages = 0;
}

static void hold(uint64_t pages, uint64_t seed)
{
	drop();
	held = anonymous(pages * PAGE);
	seeds = anonymous(pages * sizeof *seeds);
	if (held == MAP_FAILED || seeds == MAP_FAILED) {
		answer_error("mmap");
		return;
	}
	held_pages = pages;
	for (uint64_t page = 0; page < pages; page++)
		fill(page, seed);
	answer_count(pages);
}

static void verify(void)
{
	uint64_t bad = 0;
	for (uint64_t page = 0; page < held_pages; page++)
		bad += !is_intact(page);
	answer_count(bad);
}

static void churn(uint64_t pages, uint64_t seed)
{
	uint64_t bad = 0;
	for (uint64_t i = 0; i < pages && held_pages > 0; i++) {
		uint64_t page = mix(seed + i) % held_pages;
		bad += !is_intact(page);
		fill(page, seed + i);
	}
	answer_count(bad);
}

static void renew(uint64_t times, uint64_t seed)
{
	uint64_t bad = 0;
	for (uint64_t i = 0; i < times && held_pages > 0; i++) {
		uint64_t first = mix(seed + i) % (held_pages / PAGES_PER_MIB) * PAGES_PER_MIB;
		uint64_t end = first + PAGES_PER_MIB;
		for (uint64_t page = first; page < end; page++)
			bad += !is_intact(page);
		if (madvise(held + first * WORDS, PAGES_PER_MIB * PAGE, MADV_DONTNEED) < 0) {
			answer_error("madvise");
			return;
		}
		for (uint64_t page = first; page < end; page++)
			fill(page, seed + i);
	}
	answer_count(bad);
}

static void eat(uint64_t pages)
{
	pid_t child = fork();
	if (child < 0) {
		answer_error("fork");
		return;
	}
	if (child == 0) {
		volatile char *memory = anonymous(pages * PAGE);
		if (memory == MAP_FAILED)
			_exit(1);
		for (uint64_t page = 0; page < pages; page++)
			memory[page * PAGE] = 1;
		_exit(0);
	}
	answer(exit_status(child), "", 0);
}

static void check(const char *what, int result)
{
	if (result < 0)
		printf("agent: %s: %s\n", what, strerror(errno));
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(path, fd);
	check(path, syscall(SYS_finit_module, fd, "", 0));
	close(fd);
}

static void set_up(void)
{
	char line[2048] = " ";
	check("/proc", mount("proc", "/proc", "proc", 0, NULL));
	check("/sys", mount("sysfs", "/sys", "sysfs", 0, NULL));
	check("/dev", mount("dev", "/dev", "devtmpfs", 0, NULL));
	int fd = open("/proc/cmdline", O_RDONLY);
	check("/proc/cmdline", fd);
	check("/proc/cmdline", read(fd, line, sizeof line - 1));
	close(fd);
	if (strstr(line, "balloon=off") == NULL)
		load_module("/virtio_balloon.ko");
	setenv("PATH", "/bin", 1);
}

int main(void)
{
	char line[128], verb[16];

	if (getpid() == 1)
		set_up();
	/* The driver finds its ports a moment after it starts. */
	while ((port = open("/dev/vport0p1", O_RDWR | O_CLOEXEC)) < 0)
		usleep(5000);
	write_all("ready\n", 6);
	for (;;) {
		uint64_t first = 0, second = 0;
		size_t length = 0;
		do
			read_all(line + length, 1);
		while (line[length++] != '\n' && length < sizeof line - 1);
		line[length] = 0;
		if (sscanf(line, "%15s %" SCNu64 " %" SCNu64, verb, &first, &second) < 1)
			continue;
		if (strcmp(verb, "sh") == 0) {
			run_shell(first);
		} else if (strcmp(verb, "hold") == 0) {
			hold(first * PAGES_PER_MIB, second);
		} else if (strcmp(verb, "verify") == 0) {
			verify();
		} else if (strcmp(verb, "churn") == 0) {
			churn(first, second);
		} else if (strcmp(verb, "renew") == 0) {
			renew(first, second);
		} else if (strcmp(verb, "drop") == 0) {
			drop();
			answer_count(0);
		} else if (strcmp(verb, "eat") == 0) {
			eat(first * PAGES_PER_MIB);
		} else {
			errno = EINVAL;
			answer_error(verb);
		}
	}
}
