/* The load generator's state: what is asked for, what was seen, and one connection. */
#ifndef BENCH_LOADGEN_H
#define BENCH_LOADGEN_H

#include "common.h"
#include "histogram.h"

enum { MAX_DEPTH = 1024, RECEIVE_BYTES = 1 << 20, HEAD_BYTES = 512 };

typedef struct {
    size_t frame_bytes;    /* of each frame of the template */
    size_t batch_at;       /* position of the record batch in a frame, 0: none to patch */
    int64_t records;       /* in a batch: the step of the base sequence */
    size_t offset_at;      /* position of an int64 fetch offset, 0: none to patch */
    int64_t offset_step;   /* of the fetch offset, */
    int64_t offset_end;    /* which starts again from 0 here */
    size_t error_at[2];    /* positions of int16 error codes in an answer, 0: none */
    size_t answer_min;     /* a shorter answer is counted as short */
    int depth;             /* most requests in flight on a connection */
    int active;            /* connections that send; the others are only held */
    int has_answers;       /* 0: a request is over when it is sent (acks=0) */
    double interval_ns;    /* open loop: between requests over all connections; 0: closed loop */
    uint64_t limit_bytes;  /* stop after sending so much, 0: no limit */
    uint64_t limit_requests;
} Plan;

typedef struct {
    uint64_t answers, short_answers, bytes_in, bytes_out; /* while measuring */
    uint64_t errors, sent, acknowledged, bytes_sent;      /* from the start */
    int first_error;
    Histogram latency;
} Seen;

/* A frame and what changes in it from one sending to the next. */
typedef struct {
    uint8_t *bytes;
    int64_t sequence;
    int64_t offset;
} Frame;

typedef struct {
    int fd;
    int index;
    Frame *frames; /* used in turn */
    size_t frame_count, next_frame;
    Frame *sending; /* the frame that is partly sent, or NULL */
    size_t sent_bytes;
    int in_flight;
    uint32_t next_correlation, awaited_correlation;
    uint64_t due, taken;            /* open loop: requests whose time has come, and begun */
    uint64_t started_ns[MAX_DEPTH]; /* ring: when each request in flight was to be sent */
    int head, tail;
    uint8_t answer_head[HEAD_BYTES]; /* first bytes of the answer that is arriving */
    size_t have, want;               /* bytes of it so far, and in all (0 while unknown) */
} Connection;

extern Plan plan;
extern Seen seen;
extern int measuring; /* answers count */
extern int stopping;  /* no request is begun any more */
extern uint64_t schedule_start_ns, measure_start_ns;

/* Gives the connection its frames: every `count`th of the template's, from its own index on. */
void connection_open(Connection *c, const struct sockaddr_in *address, const uint8_t *template,
                     size_t template_frames, int index, int count);
/* Writes what changes into the frame: correlation id, base sequence and CRC, fetch offset. */
void frame_patch(Frame *frame, uint32_t correlation);
/* Sends what may be sent, until the socket is full. */
void connection_fill(Connection *c);
/* Reads until the socket is empty. */
void connection_receive(Connection *c, uint8_t *buffer);

#endif
