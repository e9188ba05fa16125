/* The bare loop of write and fdatasync on one file, and of fdatasync alone within it.
 *
 *   writesync file=PATH bytes=N seconds=S      prints one JSON object
 */
#define _GNU_SOURCE
#include "../native/common.h"
#include "../native/histogram.h"

int main(int argc, char **argv) {
    size_t size = (size_t)option(argc, argv, "bytes", 1 << 20);
    uint64_t run_ns = (uint64_t)(option(argc, argv, "seconds", 2) * NS_PER_S);
    int file = open(text_option(argc, argv, "file"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) die("file");
    uint8_t *bytes = allocate(1, size);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)rand();
    Histogram whole = histogram_new(), syncs = histogram_new();
    uint64_t start = now_ns(), end = start, rounds = 0;
    while (end - start < run_ns) {
        if (write(file, bytes, size) != (ssize_t)size) die("write");
        uint64_t written = now_ns();
        if (fdatasync(file)) die("fdatasync");
        uint64_t synced = now_ns();
        histogram_add(&whole, synced - end);
        histogram_add(&syncs, synced - written);
        end = synced;
        rounds++;
    }
    printf("{\"rounds\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"histogram\": ",
           (unsigned long long)rounds, (unsigned long long)(rounds * size),
           (double)(end - start) / NS_PER_S);
    histogram_print(&whole);
    printf(", \"sync_histogram\": ");
    histogram_print(&syncs);
    printf("}\n");
    return 0;
}
