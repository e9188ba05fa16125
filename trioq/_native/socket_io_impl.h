/* System calls that differ between Linux and the rest; the choice is made here and nowhere else. */
#ifndef TRIOQ_SOCKET_IO_IMPL_H
#define TRIOQ_SOCKET_IO_IMPL_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Room for an address as text, with its end. */
#define TRIOQ_HOST_SIZE 46

/* send()'s flags: no SIGPIPE where that can be asked for per call. */
int trioq_send_flags(void);

/* The flag of send() that says that more follows at once; 0 where there is none. */
int trioq_more_flag(void);

/* Most buffers one gathered call takes. */
int trioq_iov_max(void);

/* Moves up to `count` bytes of a file to a socket: bytes moved, 0 at the end of the file, or -1 and
 * errno. Elsewhere than on Linux it reads into a small buffer and sends that, until one falls short. */
ssize_t trioq_sendfile(int out_fd, int in_fd, int64_t position, size_t count);

/* pwritev(2); where it is missing, the first buffer alone by pwrite (a short write). */
ssize_t trioq_pwritev(int fd, const struct iovec *buffers, int count, int64_t position);

/* Accepts one connection: its descriptor, non-blocking and not for programs that are started, with
 * the peer's address; or -1 and errno. */
int trioq_accept(int fd, char host[TRIOQ_HOST_SIZE], int *port);

/* How often this thread has waited for something, such as a disk, rather than only for its turn on
 * a processor; -1 where the system does not tell. */
int64_t trioq_sleeps(void);

#endif
