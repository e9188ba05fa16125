/* The bare sendfile server: every request is answered with a slice of one file in page cache.
 *
 * Frames and correlation ids are Kafka's, the rest of the answer is the slice. The file is written
 * at the start, so it is in memory. One thread, epoll, slices in turn.
 *
 *   sendserver file=PATH slice=BYTES slices=N      prints "ready PORT"
 */
#define _GNU_SOURCE
#include "../native/common.h"

#include <sys/epoll.h>
#include <sys/sendfile.h>

enum { MOST_EVENTS = 512, BUFFER_BYTES = 64 << 10, HEAD_BYTES = 8, MOST_WAITING = 1024 };

typedef struct {
    int fd;
    uint8_t buffer[BUFFER_BYTES];
    size_t have;
    uint8_t waiting[MOST_WAITING][4]; /* ring: correlation ids of requests not yet answered */
    int head, tail;
    size_t head_sent, slice_sent; /* of the answer at the ring's head */
    size_t slice;
} Peer;

static int file;
static size_t slice_bytes, slices;

static void fill_file(void) {
    uint8_t *bytes = allocate(1, slice_bytes);
    for (size_t i = 0; i < slice_bytes; i++) bytes[i] = (uint8_t)rand();
    for (size_t i = 0; i < slices; i++)
        if (write(file, bytes, slice_bytes) != (ssize_t)slice_bytes) die("write");
    free(bytes);
}

/* Sends until the socket is full or nothing waits. */
static void answer(Peer *peer) {
    while (peer->head != peer->tail) {
        if (peer->head_sent < HEAD_BYTES) {
            uint8_t out[HEAD_BYTES];
            put32(out, (uint32_t)(slice_bytes + 4));
            memcpy(out + 4, peer->waiting[peer->head], 4);
            ssize_t n = send(peer->fd, out + peer->head_sent, HEAD_BYTES - peer->head_sent,
                             MSG_NOSIGNAL | MSG_MORE);
            if (n < 0 && errno == EAGAIN) return;
            if (n < 0) die("send");
            peer->head_sent += (size_t)n;
            continue;
        }
        off_t at = (off_t)(peer->slice * slice_bytes + peer->slice_sent);
        ssize_t n = sendfile(peer->fd, file, &at, slice_bytes - peer->slice_sent);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) die("sendfile");
        peer->slice_sent += (size_t)n;
        if (peer->slice_sent < slice_bytes) continue;
        peer->head_sent = peer->slice_sent = 0;
        peer->slice = (peer->slice + 1) % slices;
        peer->head = (peer->head + 1) % MOST_WAITING;
    }
}

static int receive(Peer *peer) {
    for (;;) {
        ssize_t n = recv(peer->fd, peer->buffer + peer->have, BUFFER_BYTES - peer->have, 0);
        if (n < 0 && errno == EAGAIN) return 1;
        if (n <= 0) return 0;
        peer->have += (size_t)n;
        size_t at = 0;
        while (peer->have - at >= 12 && peer->have - at >= 4 + (size_t)get32(peer->buffer + at)) {
            memcpy(peer->waiting[peer->tail], peer->buffer + at + 8, 4);
            peer->tail = (peer->tail + 1) % MOST_WAITING;
            at += 4 + (size_t)get32(peer->buffer + at);
        }
        memmove(peer->buffer, peer->buffer + at, peer->have - at);
        peer->have -= at;
    }
}

static void accept_one(int poller, int listener) {
    Peer *peer = allocate(1, sizeof *peer);
    peer->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (peer->fd < 0) die("accept");
    send_at_once(peer->fd);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = peer};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, peer->fd, &event)) die("epoll_ctl");
}

int main(int argc, char **argv) {
    slice_bytes = (size_t)option(argc, argv, "slice", 1 << 20);
    slices = (size_t)option(argc, argv, "slices", 64);
    file = open(text_option(argc, argv, "file"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) die("file");
    fill_file();
    int listener = listen_on_loopback(), poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) die("epoll");
    for (;;) {
        struct epoll_event events[MOST_EVENTS];
        int n = epoll_wait(poller, events, MOST_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Peer *peer = events[i].data.ptr;
            if (!peer) {
                accept_one(poller, listener);
            } else if (!receive(peer)) {
                close(peer->fd);
                free(peer);
            } else {
                answer(peer);
            }
        }
    }
}
