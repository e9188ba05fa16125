#include "loadgen.h"

#include "../../trioq/_native/crc32c_impl.h"

enum { CORRELATION_AT = 8, BATCH_LENGTH_AT = 8, BATCH_CRC_AT = 17, BATCH_CRC_FROM = 21,
       BATCH_SEQUENCE_AT = 53, BATCH_OVERHEAD = 12 };

void connection_open(Connection *c, const struct sockaddr_in *address, const uint8_t *template,
                     size_t template_frames, int index, int count) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)address, sizeof *address))
        die("connect");
    send_at_once(c->fd);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) die("fcntl");
    c->index = index;
    size_t first = (size_t)index % template_frames, step = (size_t)count;
    c->frame_count = (template_frames - first + step - 1) / step;
    c->frames = allocate(c->frame_count, sizeof *c->frames);
    for (size_t i = 0; i < c->frame_count; i++) {
        Frame *frame = &c->frames[i];
        frame->bytes = allocate(1, plan.frame_bytes);
        memcpy(frame->bytes, template + (first + i * step) * plan.frame_bytes, plan.frame_bytes);
        if (plan.offset_at) frame->offset = index * plan.offset_step % plan.offset_end;
    }
}

void frame_patch(Frame *frame, uint32_t correlation) {
    put32(frame->bytes + CORRELATION_AT, correlation);
    if (plan.batch_at) {
        uint8_t *batch = frame->bytes + plan.batch_at;
        uint32_t checked = get32(batch + BATCH_LENGTH_AT) - (BATCH_CRC_FROM - BATCH_OVERHEAD);
        put32(batch + BATCH_SEQUENCE_AT, (uint32_t)frame->sequence);
        frame->sequence = (frame->sequence + plan.records) & 0x7fffffff;
        put32(batch + BATCH_CRC_AT, trioq_crc32c(0, batch + BATCH_CRC_FROM, checked));
    }
    if (plan.offset_at) {
        put64(frame->bytes + plan.offset_at, (uint64_t)frame->offset);
        frame->offset += plan.offset_step;
        if (frame->offset >= plan.offset_end) frame->offset = 0;
    }
}

static int may_begin(const Connection *c) {
    if (stopping || c->in_flight >= plan.depth) return 0;
    return !plan.interval_ns || c->due > c->taken;
}

static void begin(Connection *c) {
    c->sending = &c->frames[c->next_frame];
    c->next_frame = (c->next_frame + 1) % c->frame_count;
    c->sent_bytes = 0;
    frame_patch(c->sending, c->next_correlation++);
    uint64_t start = now_ns();
    if (plan.interval_ns) {
        double turn = (double)c->index + (double)c->taken * plan.active;
        start = schedule_start_ns + (uint64_t)(turn * plan.interval_ns);
        c->taken++;
    }
    c->in_flight++;
    c->started_ns[c->tail] = start;
    c->tail = (c->tail + 1) % MAX_DEPTH;
}

static void finish(Connection *c) {
    uint64_t started = c->started_ns[c->head];
    c->head = (c->head + 1) % MAX_DEPTH;
    c->in_flight--;
    seen.acknowledged++;
    if (!measuring || (plan.interval_ns && started < measure_start_ns)) return;
    seen.answers++;
    histogram_add(&seen.latency, now_ns() - started);
}

static void sent_whole(Connection *c) {
    c->sending = NULL;
    seen.sent++;
    if (!plan.has_answers) finish(c);
    if ((plan.limit_bytes && seen.bytes_sent >= plan.limit_bytes) ||
        (plan.limit_requests && seen.sent >= plan.limit_requests))
        stopping = 1;
}

void connection_fill(Connection *c) {
    for (;;) {
        if (!c->sending) {
            if (!may_begin(c)) return;
            begin(c);
        }
        size_t left = plan.frame_bytes - c->sent_bytes;
        ssize_t n = send(c->fd, c->sending->bytes + c->sent_bytes, left, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) return;
            die("send");
        }
        c->sent_bytes += (size_t)n;
        seen.bytes_sent += (uint64_t)n;
        if (measuring) seen.bytes_out += (uint64_t)n;
        if (c->sent_bytes == plan.frame_bytes) sent_whole(c);
        /* Without answers nothing would ever wait: let the other connections have their turn. */
        if (!plan.has_answers && !c->sending) return;
    }
}

static void check_answer(Connection *c) {
    if (get32(c->answer_head + 4) != c->awaited_correlation++) {
        fprintf(stderr, "loadgen: an answer out of order\n");
        exit(1);
    }
    for (int i = 0; i < 2; i++) {
        size_t at = plan.error_at[i];
        if (!at || at + 2 > c->have || at + 2 > HEAD_BYTES) continue;
        int code = (int16_t)(c->answer_head[at] << 8 | c->answer_head[at + 1]);
        if (!code) continue;
        if (!seen.errors) seen.first_error = code;
        seen.errors++;
    }
    if (measuring && c->have < plan.answer_min) seen.short_answers++;
}

static void take(Connection *c, const uint8_t *bytes, size_t length) {
    while (length) {
        size_t n = c->want ? c->want - c->have : 4 - c->have;
        if (n > length) n = length;
        if (c->have < HEAD_BYTES) {
            size_t room = HEAD_BYTES - c->have;
            memcpy(c->answer_head + c->have, bytes, n < room ? n : room);
        }
        c->have += n;
        bytes += n;
        length -= n;
        if (!c->want && c->have == 4) {
            c->want = 4 + (size_t)get32(c->answer_head);
            if (c->want < 8) {
                fprintf(stderr, "loadgen: an answer of %zu bytes\n", c->want);
                exit(1);
            }
        }
        if (c->want && c->have == c->want) {
            check_answer(c);
            finish(c);
            c->have = c->want = 0;
        }
    }
}

void connection_receive(Connection *c, uint8_t *buffer) {
    for (;;) {
        ssize_t n = recv(c->fd, buffer, RECEIVE_BYTES, 0);
        if (n == 0) {
            fprintf(stderr, "loadgen: the broker closed the connection\n");
            exit(1);
        }
        if (n < 0) {
            if (errno == EAGAIN) return;
            die("recv");
        }
        if (measuring) seen.bytes_in += (uint64_t)n;
        take(c, buffer, (size_t)n);
        /* Less than asked for: the socket is empty, and more bytes raise an event of their own. */
        if (n < RECEIVE_BYTES) return;
    }
}
