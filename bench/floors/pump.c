/* The bare pump: the least that a broker must do with bytes, without a protocol.
 *
 * It receives length-prefixed frames, takes the CRC-32C of each, writes it to a fresh file, and
 * answers with zeros behind the frame's correlation id. One thread, epoll, no memory per request.
 *
 *   pump file=PATH answer=BYTES      prints "ready PORT"
 */
#define _GNU_SOURCE
#include "../native/common.h"

#include <sys/epoll.h>

#include "../../trioq/_native/crc32c_impl.h"

enum { MOST_EVENTS = 512, FIRST_BYTES = 64 << 10, ANSWER_BYTES = 4096 };

typedef struct {
    int fd;
    uint8_t *buffer;
    size_t have, size;
} Peer;

static int file;
static size_t answer_bytes;
static uint32_t checked; /* keeps the compiler from leaving the CRC out */

static void write_all(const uint8_t *bytes, size_t length) {
    while (length) {
        ssize_t n = write(file, bytes, length);
        if (n < 0) die("write");
        bytes += n;
        length -= (size_t)n;
    }
}

static void answer(Peer *peer, const uint8_t *frame) {
    uint8_t out[ANSWER_BYTES] = {0};
    put32(out, (uint32_t)answer_bytes - 4);
    memcpy(out + 4, frame + 8, 4);
    /* Answers are small and few: a full socket means a client that does not read. */
    if (send(peer->fd, out, answer_bytes, MSG_NOSIGNAL) != (ssize_t)answer_bytes) die("send");
}

/* Handles the whole frames in the buffer and moves the rest to its start. */
static void serve(Peer *peer) {
    size_t at = 0;
    while (peer->have - at >= 4) {
        size_t frame = 4 + (size_t)get32(peer->buffer + at);
        if (peer->have - at < frame) {
            if (frame > peer->size) {
                peer->size = frame;
                peer->buffer = realloc(peer->buffer, frame);
                if (!peer->buffer) die("memory");
            }
            break;
        }
        checked ^= trioq_crc32c(0, peer->buffer + at + 4, frame - 4);
        write_all(peer->buffer + at, frame);
        answer(peer, peer->buffer + at);
        at += frame;
    }
    if (at) memmove(peer->buffer, peer->buffer + at, peer->have - at);
    peer->have -= at;
}

static void receive(int poller, Peer *peer) {
    ssize_t n = recv(peer->fd, peer->buffer + peer->have, peer->size - peer->have, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        epoll_ctl(poller, EPOLL_CTL_DEL, peer->fd, NULL);
        close(peer->fd);
        free(peer->buffer);
        free(peer);
        return;
    }
    peer->have += (size_t)n;
    serve(peer);
}

static void accept_one(int poller, int listener) {
    Peer *peer = allocate(1, sizeof *peer);
    peer->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (peer->fd < 0) die("accept");
    send_at_once(peer->fd);
    peer->size = FIRST_BYTES;
    peer->buffer = allocate(1, peer->size);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, peer->fd, &event)) die("epoll_ctl");
}

int main(int argc, char **argv) {
    answer_bytes = (size_t)option(argc, argv, "answer", 60);
    if (answer_bytes < 8 || answer_bytes > ANSWER_BYTES) return 2;
    file = open(text_option(argc, argv, "file"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) die("file");
    trioq_crc32c_init();
    int listener = listen_on_loopback(), poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) die("epoll");
    for (;;) {
        struct epoll_event events[MOST_EVENTS];
        int n = epoll_wait(poller, events, MOST_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                receive(poller, events[i].data.ptr);
            else
                accept_one(poller, listener);
        }
    }
}
