/* Raw load generator: prebuilt Kafka requests over many connections, from one thread.
 *
 * Closed loop: every connection keeps `depth` requests in flight. Open loop (rate > 0): requests
 * are due at fixed times, and latency counts from the time a request was due, however late it
 * could be sent. What changes between requests is patched in place (see frame_patch).
 *
 *   loadgen KEY=VALUE ...          keys: see `read_plan` and `main`; prints one JSON object
 *   loadgen patch KEY=VALUE ...    writes `times` patched copies of the first frame to stdout
 *   loadgen buckets NUMBER ...     prints the histogram's bucket of each number
 */
#define _GNU_SOURCE
#include "loadgen.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#include "../../trioq/_native/crc32c_impl.h"

enum { MOST_EVENTS = 512, WAIT_MS = 20, DRAIN_S = 5 };

Plan plan;
Seen seen;
int measuring, stopping;
uint64_t schedule_start_ns, measure_start_ns;

static int connection_count;
static Connection *connections;
static int poller, timer;
static uint8_t *receive_buffer;

static void read_plan(int argc, char **argv) {
    double rate = option(argc, argv, "rate", 0);
    connection_count = (int)option(argc, argv, "connections", 1);
    plan = (Plan){
        .frame_bytes = (size_t)option(argc, argv, "frame", 0),
        .batch_at = (size_t)option(argc, argv, "batch_at", 0),
        .records = (int64_t)option(argc, argv, "records", 1),
        .offset_at = (size_t)option(argc, argv, "offset_at", 0),
        .offset_step = (int64_t)option(argc, argv, "offset_step", 0),
        .offset_end = (int64_t)option(argc, argv, "offset_end", 1),
        .error_at = {(size_t)option(argc, argv, "error_at", 0),
                     (size_t)option(argc, argv, "error2_at", 0)},
        .answer_min = (size_t)option(argc, argv, "answer_min", 0),
        .depth = (int)option(argc, argv, "depth", 1),
        .active = (int)option(argc, argv, "active", connection_count),
        .has_answers = (int)option(argc, argv, "answers", 1),
        .interval_ns = rate > 0 ? NS_PER_S / rate : 0,
        .limit_bytes = (uint64_t)option(argc, argv, "limit_bytes", 0),
        .limit_requests = (uint64_t)option(argc, argv, "limit_requests", 0),
    };
    if (plan.depth < 1 || plan.depth > MAX_DEPTH || plan.active > connection_count ||
        plan.active < 1 || plan.offset_end < 1) {
        fprintf(stderr, "loadgen: depth is 1..%d, active 1..connections\n", MAX_DEPTH);
        exit(2);
    }
}

static uint8_t *read_template(const char *path, size_t *frame_count) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path);
    size_t size = (size_t)ftell(file);
    rewind(file);
    *frame_count = plan.frame_bytes ? size / plan.frame_bytes : 0;
    uint8_t *bytes = allocate(1, size ? size : 1);
    if (!*frame_count || fread(bytes, 1, size, file) != size) {
        fprintf(stderr, "loadgen: %s holds no frame of %zu bytes\n", path, plan.frame_bytes);
        exit(2);
    }
    fclose(file);
    return bytes;
}

static void open_connections(int argc, char **argv, const uint8_t *template, size_t frames) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)option(argc, argv, "port", 0))};
    if (inet_pton(AF_INET, text_option(argc, argv, "host"), &address.sin_addr) != 1) die("host");
    connections = allocate((size_t)connection_count, sizeof *connections);
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        connection_open(c, &address, template, frames, i, plan.active);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    }
}

/* Open loop: hands out the requests whose time has come, and sets the timer for the next. */
static void keep_schedule(void) {
    static uint64_t turn;
    uint64_t now = now_ns();
    if (stopping) return;
    for (;;) {
        uint64_t due = schedule_start_ns + (uint64_t)((double)turn * plan.interval_ns);
        if (due > now) {
            struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due / NS_PER_S),
                                                 .tv_nsec = (long)(due % NS_PER_S)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
            return;
        }
        Connection *c = &connections[turn++ % (uint64_t)plan.active];
        c->due++;
        connection_fill(c);
    }
}

static void serve_events(void) {
    static uint64_t sent_before;
    struct epoll_event events[MOST_EVENTS];
    /* Without answers there is an event only where a socket was full: look, and go on sending. */
    int wait_ms = plan.has_answers || seen.sent == sent_before ? WAIT_MS : 0;
    sent_before = seen.sent;
    int n = epoll_wait(poller, events, MOST_EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
        Connection *c = events[i].data.ptr;
        if (!c) {
            uint64_t expirations;
            if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("timer");
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) connection_receive(c, receive_buffer);
        if (c->index < plan.active) connection_fill(c);
    }
    if (plan.interval_ns) keep_schedule();
    if (!plan.has_answers)
        for (int i = 0; i < plan.active; i++) connection_fill(&connections[i]);
}

static uint64_t in_flight(void) {
    uint64_t total = 0;
    for (int i = 0; i < connection_count; i++)
        total += (uint64_t)connections[i].in_flight + (connections[i].sending != NULL);
    return total;
}

/* Lets what is in flight finish; in an open loop it still counts. Returns how many did not. */
static uint64_t drain(void) {
    uint64_t end = now_ns() + (uint64_t)DRAIN_S * NS_PER_S;
    stopping = 1;
    if (!plan.interval_ns) measuring = 0;
    while (in_flight() && now_ns() < end) serve_events();
    uint64_t unanswered = 0, now = now_ns();
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        unanswered += (uint64_t)c->in_flight + (c->due - c->taken);
        if (!plan.interval_ns) continue;
        /* What was never answered, or never even sent, took at least until now. */
        for (; c->in_flight; c->in_flight--, c->head = (c->head + 1) % MAX_DEPTH)
            if (c->started_ns[c->head] >= measure_start_ns)
                histogram_add(&seen.latency, now - c->started_ns[c->head]);
        for (; c->taken < c->due; c->taken++) {
            double turn = (double)c->index + (double)c->taken * plan.active;
            uint64_t due = schedule_start_ns + (uint64_t)(turn * plan.interval_ns);
            if (due >= measure_start_ns) histogram_add(&seen.latency, now - due);
        }
    }
    return unanswered;
}

static void print_seen(double seconds, double broker_cpu_s, uint64_t answers, uint64_t unanswered) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"answers\": %llu, \"short_answers\": %llu, \"errors\": %llu, \"first_error\": %d, "
           "\"bytes_in\": %llu, \"bytes_out\": %llu, \"sent\": %llu, \"acknowledged\": %llu, "
           "\"unanswered\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f, \"broker_cpu_s\": %.6f, "
           "\"largest_ns\": %llu, \"histogram\": ",
           (unsigned long long)answers, (unsigned long long)seen.short_answers,
           (unsigned long long)seen.errors, seen.first_error, (unsigned long long)seen.bytes_in,
           (unsigned long long)seen.bytes_out, (unsigned long long)seen.sent,
           (unsigned long long)seen.acknowledged, (unsigned long long)unanswered, seconds, cpu_s,
           broker_cpu_s, (unsigned long long)seen.latency.largest);
    histogram_print(&seen.latency);
    printf("}\n");
}

static void generate(int argc, char **argv) {
    pid_t pid = (pid_t)option(argc, argv, "pid", 0);
    uint64_t warmup_ns = (uint64_t)(option(argc, argv, "warmup_s", 0.5) * NS_PER_S);
    uint64_t measure_ns = (uint64_t)(option(argc, argv, "seconds", 3) * NS_PER_S);
    size_t frames;
    uint8_t *template = read_template(text_option(argc, argv, "template"), &frames);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    receive_buffer = allocate(1, RECEIVE_BYTES);
    seen.latency = histogram_new();
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &tick)) die("poller");
    open_connections(argc, argv, template, frames);
    schedule_start_ns = now_ns();
    uint64_t measure_from = schedule_start_ns + warmup_ns, broker_cpu = 0, now;
    while ((now = now_ns()) < measure_from + measure_ns && !stopping) {
        if (!measuring && now >= measure_from) {
            measuring = 1;
            measure_from = measure_start_ns = now;
            broker_cpu = cpu_ns(pid);
        }
        serve_events();
    }
    double seconds = measuring ? (double)(now_ns() - measure_start_ns) / NS_PER_S : 0;
    double broker_cpu_s = measuring ? (double)(cpu_ns(pid) - broker_cpu) / NS_PER_S : 0;
    uint64_t answers = seen.answers, unanswered = drain();
    print_seen(seconds, broker_cpu_s, answers, unanswered);
}

static void print_patched(int argc, char **argv) {
    size_t frames;
    Frame frame = {.bytes = read_template(text_option(argc, argv, "template"), &frames)};
    int times = (int)option(argc, argv, "times", 1);
    for (int i = 0; i < times; i++) {
        frame_patch(&frame, (uint32_t)i);
        fwrite(frame.bytes, 1, plan.frame_bytes, stdout);
    }
}

int main(int argc, char **argv) {
    trioq_crc32c_init();
    if (argc > 1 && !strcmp(argv[1], "buckets")) {
        for (int i = 2; i < argc; i++)
            printf("%zu\n", histogram_bucket(strtoull(argv[i], NULL, 10)));
        return 0;
    }
    read_plan(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "patch"))
        print_patched(argc, argv);
    else
        generate(argc, argv);
    return 0;
}
