/* The floor: what a request costs when nobody thinks about it.
 *
 * Reads as many bytes as a request has and writes an answer from a file, over TCP, a unix stream or unix packets.
 * A thread for each connection and blocking calls: no form of server asks the kernel for less.
 * `drain` reads and forgets: it stands in for the process that takes the records of asynchronous capture.
 *
 *     echo tcp 0 REQUEST_BYTES ANSWER_FILE        prints the port
 *     echo stream|seqpacket PATH REQUEST_BYTES ANSWER_FILE
 *     echo drain PATH ANSWER_FILE      (which it says once, to each who connects)
 */
#include "common.h"
#include <pthread.h>

enum { CHUNK = 1 << 18 };

static size_t request_bytes, answer_bytes;
static char *answer;
static int packets, draining;

static int write_all(int fd, const char *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t some = send(fd, data + done, size - done, MSG_NOSIGNAL);
        if (some <= 0)
            return -1;
        done += (size_t)some;
    }
    return 0;
}

/* Returns 0 when a whole request was read. */
static int read_request(int fd, char *buffer) {
    if (packets)
        return recv(fd, buffer, CHUNK, 0) > 0 ? 0 : -1;
    for (size_t done = 0; done < request_bytes;) {
        size_t want = request_bytes - done < CHUNK ? request_bytes - done : CHUNK;
        ssize_t some = recv(fd, buffer, want, 0);
        if (some <= 0)
            return -1;
        done += (size_t)some;
    }
    return 0;
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    char *buffer = malloc(CHUNK);
    if (draining) {
        if (write_all(fd, answer, answer_bytes) == 0)
            while (recv(fd, buffer, CHUNK, 0) > 0)
                ;
    }
    else
        while (read_request(fd, buffer) == 0 && write_all(fd, answer, answer_bytes) == 0)
            ;
    free(buffer);
    close(fd);
    return NULL;
}

static int listen_tcp(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 128) < 0)
        die("port %d: %s", port, strerror(errno));
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    return fd;
}

static int listen_unix(const char *path, int kind) {
    int fd = socket(AF_UNIX, kind | SOCK_CLOEXEC, 0);
    struct sockaddr_un address;
    socklen_t length = unix_address(path, &address);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 128) < 0)
        die("%s: %s", path, strerror(errno));
    printf("%s\n", path);
    return fd;
}

static int open_listener(const char *kind, const char *where) {
    if (strcmp(kind, "tcp") == 0)
        return listen_tcp(atoi(where));
    packets = strcmp(kind, "seqpacket") == 0;
    return listen_unix(where, packets ? SOCK_SEQPACKET : SOCK_STREAM);
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    draining = argc == 4 && strcmp(argv[1], "drain") == 0;
    if (argc != 5 && !draining)
        die("usage: echo tcp|stream|seqpacket PORT|PATH REQUEST_BYTES ANSWER_FILE, or: echo drain PATH ANSWER_FILE");
    int listener = open_listener(argv[1], argv[2]);
    if (!draining)
        request_bytes = strtoull(argv[3], NULL, 10);
    answer = whole_file(argv[argc - 1], &answer_bytes);
    fflush(stdout);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            die("accept: %s", strerror(errno));
        no_delay(fd); /* on a unix socket it does nothing */
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
            die("no thread for a connection");
        pthread_detach(thread);
    }
}
