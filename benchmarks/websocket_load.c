/* The load of an echo over WebSockets: one message at a time in flight on each connection.

   websocket_load SIZE SECONDS SPIN FD...   the sockets are open and the handshakes done

   Each message is a binary one of SIZE bytes, masked beforehand; its answer is read frame by frame, and the
   next one is sent as soon as the last byte of the answer is there. Prints messages, seconds, and seconds of
   CPU time of this program. With SPIN 1 it asks again and again instead of sleeping, so that no server waits
   for it to wake up. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { FIN = 0x80, CONTINUATION = 0, BINARY = 2, CLOSE = 8, MASKED = 0x80, PIECE = 1 << 18, EVENTS = 256 };

struct connection {
    int fd;
    size_t unsent;         /* of the message that is on its way */
    unsigned char head[10]; /* of the frame that comes */
    size_t head_size;      /* bytes of it that are here */
    uint64_t rest;         /* bytes of its payload that are not */
    uint64_t message;      /* bytes of the message, as its frames announced them */
};

static unsigned char piece[PIECE];
static unsigned char *frame;
static size_t frame_size;
static uint64_t size;
static uint64_t messages;
static int poll_fd;

static void fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void make_frame(void) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    int extended = size < 126 ? 0 : size < 65536 ? 2 : 8;
    size_t start = 2 + extended + 4;
    frame_size = start + size;
    frame = malloc(frame_size);
    if (frame == NULL) fail("no memory");
    frame[0] = FIN | BINARY;
    frame[1] = MASKED | (extended == 0 ? (unsigned char)size : extended == 2 ? 126 : 127);
    for (int i = 0; i < extended; i++) frame[2 + i] = size >> 8 * (extended - 1 - i);
    memcpy(frame + start - 4, mask, 4);
    for (size_t i = 0; i < size; i++) frame[start + i] = 'a' ^ mask[i % 4];
}

static void send_rest(struct connection *c) {
    ssize_t sent = send(c->fd, frame + frame_size - c->unsent, c->unsent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) fail("the server dropped a connection");
        sent = 0;
    }
    int waited = c->unsent < frame_size, waits;
    c->unsent -= sent;
    waits = c->unsent > 0;
    if (waits || waited) {
        struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
    }
}

static void send_message(struct connection *c) {
    c->unsent = frame_size;
    send_rest(c);
}

/* Size of the head of a frame, as far as its first two bytes tell. */
static size_t head_length(const struct connection *c) {
    if (c->head_size < 2) return 2;
    return 2 + (c->head[1] == 126 ? 2 : c->head[1] == 127 ? 8 : 0);
}

static void begin_payload(struct connection *c) {
    int opcode = c->head[0] & 0x0f;
    if (c->head[0] & 0x70 || c->head[1] & MASKED) fail("the server sent a frame with wrong flags");
    if (opcode == CLOSE) fail("the server closed a connection");
    if (opcode == CONTINUATION || opcode == BINARY) {
        if ((opcode == BINARY) != (c->message == 0)) fail("the server sent frames out of order");
        c->message += c->rest;
    } else if (opcode < CLOSE) {
        fail("the server sent something that is no echo");
    }
}

static void end_frame(struct connection *c) {
    int is_control = c->head[0] & CLOSE, final = c->head[0] & FIN;
    c->head_size = 0;
    if (is_control || !final) return;
    if (c->message != size) fail("the server sent an echo of another length");
    c->message = 0;
    messages++;
    send_message(c);
}

static void receive(struct connection *c) {
    ssize_t got = recv(c->fd, piece, sizeof piece, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("the server dropped a connection");
    for (const unsigned char *at = piece, *end = piece + got; at < end;) {
        if (c->head_size < head_length(c)) {
            c->head[c->head_size++] = *at++;
            if (c->head_size < head_length(c)) continue;
            c->rest = c->head_size == 2 ? c->head[1] & 0x7f : 0;
            for (size_t i = 2; i < c->head_size; i++) c->rest = c->rest << 8 | c->head[i];
            begin_payload(c);
        }
        size_t taken = c->rest < (uint64_t)(end - at) ? c->rest : (size_t)(end - at);
        at += taken;
        c->rest -= taken;
        if (c->rest == 0) end_frame(c);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) fail("usage: websocket_load SIZE SECONDS SPIN FD...");
    size = strtoull(argv[1], NULL, 10);
    double seconds = atof(argv[2]);
    int patience = atoi(argv[3]) ? 0 : 1000;
    int count = argc - 4;
    struct connection *connections = calloc(count, sizeof *connections);
    poll_fd = epoll_create1(0);
    if (size == 0 || connections == NULL || poll_fd < 0) fail("cannot start");
    make_frame();

    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), took;
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->fd = atoi(argv[4 + i]);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("not a socket");
        send_message(c);
    }
    while ((took = now(CLOCK_MONOTONIC) - began) < seconds) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poll_fd, events, EVENTS, patience);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_rest(c);
            if (events[i].events & ~EPOLLOUT) receive(c);
        }
    }
    printf("%llu %f %f\n", (unsigned long long)messages, took, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
