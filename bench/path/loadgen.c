/* Raw load generator: prebuilt Kafka requests over many connections at a chosen depth.
 *
 * Closed loop: every connection keeps `depth` requests in flight and sends the next one when
 * an answer comes. What changes from request to request is patched in place: correlation id,
 * and, where asked, the base sequence (with the batch's CRC-32C) or the fetch offset.
 *
 * Usage: loadgen HOST PORT TEMPLATE CONNECTIONS DEPTH SECONDS [key=value ...]
 *   TEMPLATE      file: request frames of equal size, one per connection, used round robin
 *   frame         bytes per frame in TEMPLATE (required)
 *   batch_at      position of the record batch in a frame; base sequence and CRC are patched
 *   records       records per batch (the step of the base sequence)
 *   offset_at     position of the int64 fetch offset in a frame
 *   offset_step   step and
 *   offset_end    bound of the fetch offset (it starts again from 0)
 *   error_at      position of an int16 error code in an answer that must be 0
 *   warmup_s      seconds before the measuring starts (default 0.5)
 * Prints one JSON object: answers, errors, bytes in and out, seconds, latency percentiles.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../../trioq/_native/crc32c_impl.h"

enum { MAX_DEPTH = 256, RECEIVE_BYTES = 1 << 20, LATENCY_BUCKETS = 200000 };

typedef struct {
    int fd;
    uint8_t *frame;
    size_t sent;          /* bytes of the current frame that left */
    int sending;          /* a frame is partly sent */
    int in_flight;
    int32_t correlation;
    int32_t sequence;
    int64_t offset;
    uint64_t started_ns[MAX_DEPTH];
    int head, tail;       /* ring of start times */
    uint8_t head_bytes[512]; /* first bytes of the answer that is arriving */
    size_t have;          /* bytes of it seen so far */
    size_t want;          /* its size with the length prefix, 0 while unknown */
} Connection;

static size_t frame_bytes, batch_at, offset_at, error_at;
static int32_t records = 1;
static int64_t offset_step, offset_end;
static int depth;
static uint64_t answers, errors, bytes_in, bytes_out;
static uint32_t *latency; /* per 10 microseconds */
static int measuring;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put32(uint8_t *at, uint32_t value) {
    value = htobe32(value);
    memcpy(at, &value, 4);
}

static void patch(Connection *c) {
    put32(c->frame + 8, (uint32_t)c->correlation++);
    if (batch_at) {
        uint8_t *batch = c->frame + batch_at;
        uint32_t length;
        memcpy(&length, batch + 8, 4);
        put32(batch + 53, (uint32_t)c->sequence);
        c->sequence = (int32_t)(((int64_t)c->sequence + records) & 0x7fffffff);
        put32(batch + 17, trioq_crc32c(0, batch + 21, be32toh(length) - 9));
    }
    if (offset_at) {
        uint64_t offset = htobe64((uint64_t)c->offset);
        memcpy(c->frame + offset_at, &offset, 8);
        c->offset += offset_step;
        if (c->offset >= offset_end) c->offset = 0;
    }
}

/* Send until `depth` are in flight or the socket is full; returns 1 when it is full. */
static int fill(Connection *c) {
    for (;;) {
        if (!c->sending) {
            if (c->in_flight >= depth) return 0;
            patch(c);
            c->sending = 1;
            c->sent = 0;
            c->in_flight++;
            c->started_ns[c->tail] = now_ns();
            c->tail = (c->tail + 1) % MAX_DEPTH;
        }
        ssize_t n = send(c->fd, c->frame + c->sent, frame_bytes - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) return 1;
            die("send");
        }
        c->sent += (size_t)n;
        if (measuring) bytes_out += (uint64_t)n;
        if (c->sent == frame_bytes) c->sending = 0;
    }
}

static void answered(Connection *c) {
    uint64_t took = now_ns() - c->started_ns[c->head];
    c->head = (c->head + 1) % MAX_DEPTH;
    c->in_flight--;
    int16_t code = 0;
    if (error_at && error_at + 2 <= c->have && error_at + 2 <= sizeof c->head_bytes) {
        memcpy(&code, c->head_bytes + error_at, 2);
        code = (int16_t)be16toh((uint16_t)code);
    }
    if (code) {
        if (!errors) fprintf(stderr, "loadgen: first error code %d\n", code);
        errors++;
    }
    if (!measuring) return;
    answers++;
    uint64_t bucket = took / 10000;
    latency[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
}

static void receive(Connection *c, uint8_t *buffer) {
    ssize_t n = recv(c->fd, buffer, RECEIVE_BYTES, 0);
    if (n == 0) {
        fprintf(stderr, "loadgen: the broker closed the connection\n");
        exit(1);
    }
    if (n < 0) {
        if (errno == EAGAIN) return;
        die("recv");
    }
    if (measuring) bytes_in += (uint64_t)n;
    size_t at = 0;
    while (at < (size_t)n) {
        size_t left = (size_t)n - at;
        size_t take = c->want ? c->want - c->have : 4 - c->have;
        if (take > left) take = left;
        if (c->have < sizeof c->head_bytes) {
            size_t keep = sizeof c->head_bytes - c->have;
            memcpy(c->head_bytes + c->have, buffer + at, take < keep ? take : keep);
        }
        c->have += take;
        at += take;
        if (!c->want && c->have == 4) {
            uint32_t length;
            memcpy(&length, c->head_bytes, 4);
            c->want = 4 + be32toh(length);
        }
        if (c->want && c->have == c->want) {
            answered(c);
            c->have = c->want = 0;
        }
    }
}

static double percentile(double p) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) total += latency[i];
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency[i];
        if (total && (double)seen >= p * (double)total) return (i + 1) / 100.0;
    }
    return 0;
}

static long long option(int argc, char **argv, const char *key, long long fallback) {
    size_t n = strlen(key);
    for (int i = 7; i < argc; i++)
        if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return atoll(argv[i] + n + 1);
    return fallback;
}

static int connect_to(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("address");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static uint8_t *read_template(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) die(path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*size);
    if (!bytes || fread(bytes, 1, *size, f) != *size) die(path);
    fclose(f);
    return bytes;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr, "usage: loadgen HOST PORT TEMPLATE CONNECTIONS DEPTH SECONDS [key=value]\n");
        return 2;
    }
    size_t size;
    uint8_t *template = read_template(argv[3], &size);
    int count = atoi(argv[4]);
    depth = atoi(argv[5]);
    double seconds = atof(argv[6]);
    frame_bytes = (size_t)option(argc, argv, "frame", 0);
    batch_at = (size_t)option(argc, argv, "batch_at", 0);
    records = (int32_t)option(argc, argv, "records", 1);
    offset_at = (size_t)option(argc, argv, "offset_at", 0);
    offset_step = option(argc, argv, "offset_step", 0);
    offset_end = option(argc, argv, "offset_end", 1);
    error_at = (size_t)option(argc, argv, "error_at", 0);
    uint64_t warmup_ns = (uint64_t)option(argc, argv, "warmup_ms", 500) * 1000000u;
    if (!frame_bytes || size < frame_bytes || depth < 1 || depth > MAX_DEPTH) {
        fprintf(stderr, "loadgen: frame must be given and fit the template; depth is 1..256\n");
        return 2;
    }
    trioq_crc32c_init();
    latency = calloc(LATENCY_BUCKETS, sizeof *latency);
    uint8_t *buffer = malloc(RECEIVE_BYTES);
    Connection *connections = calloc((size_t)count, sizeof *connections);
    int ep = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        Connection *c = &connections[i];
        c->fd = connect_to(argv[1], atoi(argv[2]));
        c->frame = malloc(frame_bytes);
        memcpy(c->frame, template + ((size_t)i % (size / frame_bytes)) * frame_bytes, frame_bytes);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    }
    uint64_t begin = now_ns(), measure = begin + warmup_ns;
    uint64_t end = measure + (uint64_t)(seconds * 1e9);
    struct epoll_event events[256];
    for (;;) {
        uint64_t now = now_ns();
        if (!measuring && now >= measure) {
            measuring = 1;
            measure = now;
        }
        if (now >= end) break;
        int n = epoll_wait(ep, events, 256, 100);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                /* edge triggered: read until nothing is left */
                for (;;) {
                    uint8_t probe;
                    receive(c, buffer);
                    if (recv(c->fd, &probe, 1, MSG_PEEK) < 0) break;
                }
            }
            fill(c);
        }
    }
    double took = (double)(now_ns() - measure) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"answers\": %llu, \"errors\": %llu, \"bytes_in\": %llu, \"bytes_out\": %llu, "
           "\"seconds\": %.3f, \"cpu_s\": %.3f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
           "\"p999_ms\": %.2f, \"max_ms\": %.2f}\n",
           (unsigned long long)answers, (unsigned long long)errors, (unsigned long long)bytes_in,
           (unsigned long long)bytes_out, took, cpu, percentile(0.5), percentile(0.99),
           percentile(0.999), percentile(1.0));
    return errors ? 1 : 0;
}
