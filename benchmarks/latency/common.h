/* What the echo server and the load generator share. Linux alone. */
#ifndef EDGEWARD_BENCH_COMMON_H
#define EDGEWARD_BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static char *whole_file(const char *path, size_t *size) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        die("%s: %s", path, strerror(errno));
    char *data = malloc((size_t)status.st_size + 1);
    if (!data || read(fd, data, (size_t)status.st_size) != status.st_size)
        die("%s: expected %lld bytes", path, (long long)status.st_size);
    close(fd);
    *size = (size_t)status.st_size;
    return data;
}

static socklen_t unix_address(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path)
        die("%s: longer than a socket's path may be", path);
    strcpy(address->sun_path, path);
    return sizeof *address;
}

static void no_delay(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }

#endif
