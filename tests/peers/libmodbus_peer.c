/* The second implementation of Modbus, and the yardstick of the benchmark: libmodbus.
 *
 *   libmodbus_peer serve            prints its port; 1000 of each table, register i holds i, bit i is i % 3 == 0
 *   libmodbus_peer serve-rtu PATH   the same as unit 1 on a serial line; prints 0 when it is ready
 *   libmodbus_peer poll PORT S N C  reads N holding registers again and again for S seconds, over C connections in turn;
 *                                   prints the number of reads and the seconds of processor time they took
 *   libmodbus_peer rare PORT        mask-writes holding register 4 (and 0xF2, or 0x25), then writes 77 to it and reads it in
 *                                   one request; prints the register after each
 */
#include <errno.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 1000 };

static modbus_mapping_t *mapping(void) {
    modbus_mapping_t *map = modbus_mapping_new(SIZE, SIZE, SIZE, SIZE);
    for (int i = 0; map && i < SIZE; i++) {
        map->tab_registers[i] = map->tab_input_registers[i] = (uint16_t)i;
        map->tab_bits[i] = map->tab_input_bits[i] = i % 3 == 0;
    }
    return map;
}

static int serve_rtu(const char *path) {
    modbus_t *ctx = modbus_new_rtu(path, 19200, 'E', 8, 1);
    modbus_mapping_t *map = mapping();
    if (!ctx || !map || modbus_set_slave(ctx, 1) || modbus_connect(ctx)) return 1;
    puts("0");
    fflush(stdout);
    for (;;) {
        uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
        int n = modbus_receive(ctx, query);
        if (n > 0) modbus_reply(ctx, query, n, map);
    }
}

static int rare(int port) {
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", port);
    uint16_t word = 77, back = 0;
    if (!ctx || modbus_set_slave(ctx, 1) || modbus_connect(ctx)) return 1;
    if (modbus_mask_write_register(ctx, 4, 0xf2, 0x25) != 1 || modbus_read_registers(ctx, 4, 1, &back) != 1) return 2;
    printf("%d\n", back);
    if (modbus_write_and_read_registers(ctx, 4, 1, &word, 4, 1, &back) != 1) return 3;
    printf("%d\n", back);
    return 0;
}

static int serve(void) {
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = mapping();
    if (!ctx || !map) return 1;
    /* libmodbus insists on a port of its own choosing; a listening socket of ours takes any free one,
     * at every loopback address: each is a device of its own. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 256)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    fd_set all;
    FD_ZERO(&all);
    FD_SET(listener, &all);
    int most = listener;
    for (;;) {
        fd_set ready = all;
        if (select(most + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        for (int s = 0; s <= most; s++) {
            if (!FD_ISSET(s, &ready)) continue;
            if (s == listener) {
                int client = modbus_tcp_accept(ctx, &listener);
                if (client < 0) continue;
                FD_SET(client, &all);
                if (client > most) most = client;
                continue;
            }
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(ctx, s);
            int n = modbus_receive(ctx, query);
            if (n > 0) {
                modbus_reply(ctx, query, n, map);
            } else if (n < 0) {
                close(s);
                FD_CLR(s, &all);
            }
        }
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int poll_it(int port, double seconds, int count, int connections) {
    modbus_t *all[1000];
    if (connections < 1 || connections > 1000) return 64;
    for (int i = 0; i < connections; i++) {
        all[i] = modbus_new_tcp("127.0.0.1", port);
        if (!all[i] || modbus_connect(all[i])) return 1;
    }
    uint16_t registers[MODBUS_MAX_READ_REGISTERS];
    long reads = 0;
    double start = now();
    while (now() - start < seconds) {
        if (modbus_read_registers(all[reads % connections], 0, count, registers) != count) return 1;
        reads++;
    }
    printf("%ld %f\n", reads, (double)clock() / CLOCKS_PER_SEC);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "serve")) return serve();
    if (argc == 3 && !strcmp(argv[1], "serve-rtu")) return serve_rtu(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "rare")) return rare(atoi(argv[2]));
    if (argc == 6 && !strcmp(argv[1], "poll"))
        return poll_it(atoi(argv[2]), atof(argv[3]), atoi(argv[4]), atoi(argv[5]));
    fprintf(stderr, "usage: libmodbus_peer serve | serve-rtu PATH | rare PORT | poll PORT SECONDS REGISTERS CONNECTIONS\n");
    return 64;
}
