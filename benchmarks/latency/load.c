/* The client that is not what is measured: replays one prepared request and notes how long each answer took.
 *
 *     load tcp PORT | stream PATH | seqpacket PATH
 *          --request FILE          the bytes of a whole request (a packet, for seqpacket)
 *          --latencies FILE        where to write a uint64 of nanoseconds for each answer, in the machine's order
 *          [--connections N] [--seconds S] [--warm-up S]
 *          [--every-us N]          one connection asks at fixed times; latency counts from the time that was meant
 *          [--keep-answer FILE]    the first answer, whole
 *          [--open FILE --inputs FILE --memory-bytes N]
 *                                  seqpacket alone: docs/spec/frames.md. The plan, sent with a memory file whose first
 *                                  bytes are the inputs; they are written anew before each request, and its time counts
 *                                  from when they lie there, but with --every-us as said. After each answer the rest
 *                                  is read, and counts.
 *
 * Closed loop: each connection asks again as soon as it is answered. One connection blocks, as a bedside application
 * does; several share this thread through epoll. Answers are HTTP/1.1 with Content-Length and status 200; the first
 * other answer ends the run with exit code 1 and is printed, for a server that fails quickly is no fast server.
 * Prints {"answers": latencies written, "in_window": answers that came in the measured time, "window_ns": …}.
 */
#include "common.h"
#include <sys/epoll.h>
#include <sys/mman.h>

enum { FIRST_BUFFER = 1 << 16, PATIENCE_MS = 60000 };

typedef struct {
    int fd;
    size_t sent, have, room, need; /* need: bytes of the whole answer, 0 until its head is complete */
    uint64_t begun;
    char *buffer, *memory; /* memory is shared with the server, NULL where tensors travel */
} Connection;

static const char *kind, *where, *request_path, *latencies_path, *keep_path, *open_path, *inputs_path;
static int connections = 1, packets;
static double seconds = 1.0, warm_up = 0.2;
static uint64_t every_ns, warm_ns, end_ns;
static char *request, *plan, *inputs, *outputs;
static size_t request_bytes, plan_bytes, input_bytes, memory_bytes;
static uint64_t *latencies, written, latency_room, in_window;
static volatile sig_atomic_t stopped;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void on_signal(int number) { stopped = number; }

static void note(uint64_t begun, uint64_t ended) {
    if (begun < warm_ns)
        return;
    if (written == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        if (!(latencies = realloc(latencies, latency_room * sizeof *latencies)))
            die("out of memory");
    }
    latencies[written++] = ended - begun;
    in_window += ended <= end_ns;
}

/* -- answers */

static void refuse(const char *why, const Connection *connection) {
    int shown = connection->have > 600 ? 600 : (int)connection->have;
    fprintf(stderr, "%s: %.*s\n", why, shown, connection->buffer);
    exit(1);
}

/* Bytes of the whole answer, or 0 while its head is not complete. */
static size_t answer_size(const Connection *connection) {
    const char *head = connection->buffer;
    const char *end = memmem(head, connection->have, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(head, "HTTP/1.1 200", 12) != 0)
        refuse("expected status 200", connection);
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line && line < end;
         line = memchr(line + 1, '\n', (size_t)(end - line)))
        if (strncasecmp(line + 1, "content-length:", 15) == 0)
            return (size_t)(end - head) + 4 + strtoull(line + 16, NULL, 10);
    refuse("expected Content-Length", connection);
    return 0;
}

/* The status of a packet of the server: two bytes, little-endian, behind its kind. */
static void check_packet(const Connection *connection, unsigned char wanted) {
    const unsigned char *packet = (const unsigned char *)connection->buffer;
    if (connection->have < 16 || packet[0] != wanted || packet[2] + 256 * packet[3] != 200)
        refuse("expected a packet with status 200", connection);
}

static void make_room(Connection *connection) {
    size_t wanted = connection->need > connection->have ? connection->need : connection->have + 1;
    if (wanted <= connection->room)
        return;
    connection->room = wanted * 2;
    if (!(connection->buffer = realloc(connection->buffer, connection->room)))
        die("out of memory");
}

static void keep_answer(const Connection *connection) {
    FILE *file = fopen(keep_path, "wb");
    if (!file || fwrite(connection->buffer, 1, connection->have, file) != connection->have || fclose(file) != 0)
        die("%s: %s", keep_path, strerror(errno));
    keep_path = NULL;
}

/* Returns 1 when the answer is complete, 0 when there is nothing to read now. */
static int receive(Connection *connection) {
    for (;;) {
        make_room(connection);
        ssize_t some = recv(connection->fd, connection->buffer + connection->have,
                            connection->room - connection->have, 0);
        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0 && errno == EAGAIN && connections > 1)
            return 0;
        if (some <= 0)
            refuse(some ? strerror(errno) : "the server closed the connection", connection);
        connection->have += (size_t)some;
        if (packets)
            connection->need = connection->have;
        else if (!connection->need)
            connection->need = answer_size(connection);
        if (connection->need && connection->have > connection->need)
            refuse("more than one answer to a request", connection);
        if (connection->need && connection->have == connection->need)
            return 1;
    }
}

/* -- requests */

/* Returns 1 when all is sent, 0 when the socket takes no more now. */
static int transmit(Connection *connection) {
    while (connection->sent < request_bytes) {
        ssize_t some = send(connection->fd, request + connection->sent, request_bytes - connection->sent, MSG_NOSIGNAL);
        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0 && errno == EAGAIN && connections > 1)
            return 0;
        if (some <= 0)
            refuse(strerror(errno), connection);
        connection->sent += (size_t)some;
    }
    return 1;
}

/* `meant` is when an open loop meant to ask; 0 for a closed one, which asks when its inputs are there. */
static void begin(Connection *connection, uint64_t meant) {
    connection->sent = connection->have = connection->need = 0;
    if (connection->memory)
        memcpy(connection->memory, inputs, input_bytes);
    connection->begun = meant ? meant : now_ns();
}

static void finish(Connection *connection) {
    if (connection->memory) {
        check_packet(connection, 0x82);
        memcpy(outputs, connection->memory + input_bytes, memory_bytes - input_bytes);
    }
    note(connection->begun, now_ns());
    if (keep_path)
        keep_answer(connection);
}

/* -- the two loops */

static void run_one(Connection *connection) {
    prctl(PR_SET_TIMERSLACK, 1); /* else the kernel wakes us up to 50 us late, to save power */
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){PATIENCE_MS / 1000, 0},
               sizeof(struct timeval));
    for (uint64_t at = now_ns(); at < end_ns && !stopped; at = every_ns ? at + every_ns : now_ns()) {
        if (every_ns)
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
                            &(struct timespec){(time_t)(at / 1000000000u), (long)(at % 1000000000u)}, NULL);
        if (stopped) /* a signal ends the sleep early: an answer before its intended time would be no answer */
            break;
        begin(connection, every_ns ? at : 0);
        transmit(connection);
        receive(connection);
        finish(connection);
    }
}

static void watch(int epoll, Connection *connection, int operation) {
    int unsent = connection->sent < request_bytes;
    struct epoll_event event = {.events = unsent ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, operation, connection->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* Returns 1 while the connection has a request under way. */
static int go_on(int epoll, Connection *connection, uint32_t events) {
    if (events & EPOLLOUT && transmit(connection))
        watch(epoll, connection, EPOLL_CTL_MOD);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !receive(connection))
        return 1;
    finish(connection);
    if (now_ns() >= end_ns || stopped)
        return 0;
    begin(connection, 0);
    if (!transmit(connection))
        watch(epoll, connection, EPOLL_CTL_MOD);
    return 1;
}

static void run_many(Connection *all) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), busy = connections;
    struct epoll_event events[64];
    for (int index = 0; index < connections; index++) {
        begin(&all[index], 0);
        transmit(&all[index]);
        watch(epoll, &all[index], EPOLL_CTL_ADD);
    }
    while (busy > 0) {
        int count = epoll_wait(epoll, events, 64, PATIENCE_MS);
        if (count == 0)
            die("expected an answer within %d s, got none", PATIENCE_MS / 1000);
        for (int index = 0; index < count; index++)
            busy -= !go_on(epoll, events[index].data.ptr, events[index].events);
    }
}

/* -- set-up */

static int open_connection(void) {
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(where))};
    struct sockaddr_un local;
    int is_tcp = strcmp(kind, "tcp") == 0;
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(is_tcp ? AF_INET : AF_UNIX, packets ? SOCK_SEQPACKET : SOCK_STREAM, 0);
    int bad = is_tcp ? connect(fd, (struct sockaddr *)&tcp, sizeof tcp)
                     : connect(fd, (struct sockaddr *)&local, unix_address(where, &local));
    if (bad < 0)
        die("%s %s: %s", kind, where, strerror(errno));
    no_delay(fd);
    return fd;
}

/* Send the plan with memory that can neither shrink nor grow, and wait until the server has taken it. */
static void share_memory(Connection *connection) {
    int memory = memfd_create("load", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0 || ftruncate(memory, (off_t)memory_bytes) < 0 ||
        fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        die("memory file: %s", strerror(errno));
    connection->memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (connection->memory == MAP_FAILED)
        die("memory file: %s", strerror(errno));
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &memory, sizeof(int));
    struct msghdr message = {.msg_iov = &(struct iovec){plan, plan_bytes}, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t some = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
    if (some >= 0)
        some = recv(connection->fd, connection->buffer, connection->room, 0);
    connection->have = some > 0 ? (size_t)some : 0;
    check_packet(connection, 0x81);
    close(memory);
}

static void read_options(int argc, char **argv) {
    if (argc < 3 || argc % 2 == 0)
        die("usage: load tcp|stream|seqpacket PORT|PATH --request FILE --latencies FILE [--connections N] …");
    kind = argv[1], where = argv[2];
    packets = strcmp(kind, "seqpacket") == 0;
    for (int index = 3; index + 1 < argc; index += 2) {
        const char *name = argv[index], *value = argv[index + 1];
        if (strcmp(name, "--request") == 0) request_path = value;
        else if (strcmp(name, "--latencies") == 0) latencies_path = value;
        else if (strcmp(name, "--keep-answer") == 0) keep_path = value;
        else if (strcmp(name, "--open") == 0) open_path = value;
        else if (strcmp(name, "--inputs") == 0) inputs_path = value;
        else if (strcmp(name, "--memory-bytes") == 0) memory_bytes = strtoull(value, NULL, 10);
        else if (strcmp(name, "--connections") == 0) connections = atoi(value);
        else if (strcmp(name, "--seconds") == 0) seconds = atof(value);
        else if (strcmp(name, "--warm-up") == 0) warm_up = atof(value);
        else if (strcmp(name, "--every-us") == 0) every_ns = strtoull(value, NULL, 10) * 1000;
        else die("unknown option %s", name);
    }
    if (!open_path != !inputs_path || (open_path && !memory_bytes))
        die("expected --open, --inputs and --memory-bytes together");
    if (!request_path || !latencies_path || connections < 1 || connections > 1024 || (every_ns && connections > 1))
        die("expected --request, --latencies, 1 to 1024 connections, and one with --every-us");
}

static Connection *open_all(void) {
    Connection *all = calloc((size_t)connections, sizeof *all);
    for (int index = 0; index < connections; index++) {
        all[index].fd = open_connection();
        all[index].buffer = malloc(all[index].room = FIRST_BUFFER);
        if (plan)
            share_memory(&all[index]);
        if (connections > 1)
            fcntl(all[index].fd, F_SETFL, O_NONBLOCK);
    }
    return all;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: an idle wait ends too */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    read_options(argc, argv);
    request = whole_file(request_path, &request_bytes);
    if (open_path) {
        plan = whole_file(open_path, &plan_bytes);
        inputs = whole_file(inputs_path, &input_bytes);
        if (!packets || memory_bytes < input_bytes || !(outputs = malloc(memory_bytes - input_bytes + 1)))
            die("expected seqpacket, and memory for more than the inputs");
    }
    Connection *all = open_all();
    warm_ns = now_ns() + (uint64_t)(warm_up * 1e9);
    end_ns = warm_ns + (uint64_t)(seconds * 1e9);
    if (connections == 1)
        run_one(all);
    else
        run_many(all);
    uint64_t window_ns = (stopped ? now_ns() : end_ns) - warm_ns;
    FILE *file = fopen(latencies_path, "wb");
    if (!file || fwrite(latencies, sizeof *latencies, written, file) != written || fclose(file) != 0)
        die("%s: %s", latencies_path, strerror(errno));
    printf("{\"answers\": %llu, \"in_window\": %llu, \"window_ns\": %llu}\n", (unsigned long long)written,
           (unsigned long long)in_window, (unsigned long long)window_ns);
    return 0;
}
