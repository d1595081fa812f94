/* The yardstick of P3 and P18: JetStream async publish into a stream on a file, with libnats,
 * against servers on this machine. Every acknowledgement is waited for. Prints messages a second.
 *
 * usage: jetstream_pub URL MESSAGES BYTES [REPLICAS [IN_FLIGHT]] */
#include <nats/nats.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int fail(const char *what, natsStatus status)
{
    (void)fprintf(stderr, "jetstream_pub: %s: %s\n", what, natsStatus_GetText(status));
    return 1;
}

int main(int argc, char **argv)
{
    natsConnection *connection = NULL;
    jsCtx *js = NULL;
    jsStreamConfig stream;
    jsOptions options;
    jsPubOptions wait;
    if (argc < 4 || argc > 6) {
        (void)fprintf(stderr, "usage: jetstream_pub URL MESSAGES BYTES [REPLICAS [IN_FLIGHT]]\n");
        return 2;
    }
    long messages = strtol(argv[2], NULL, 10);
    int bytes = (int)strtol(argv[3], NULL, 10);
    char *payload = malloc((size_t)bytes);
    if (payload == NULL) {
        return 1;
    }
    memset(payload, 'x', (size_t)bytes);
    (void)jsOptions_Init(&options);
    options.PublishAsync.MaxPending = argc > 5 ? strtol(argv[5], NULL, 10) : 4096;
    natsStatus status = natsConnection_ConnectTo(&connection, argv[1]);
    if (status == NATS_OK) {
        status = natsConnection_JetStream(&js, connection, &options);
    }
    if (status != NATS_OK) {
        return fail("connect", status);
    }
    (void)jsStreamConfig_Init(&stream);
    const char *subjects[] = {"events.>"};
    stream.Name = "EVENTS";
    stream.Subjects = subjects;
    stream.SubjectsLen = 1;
    stream.Storage = js_FileStorage;
    stream.Replicas = argc > 4 ? strtol(argv[4], NULL, 10) : 1;
    (void)js_DeleteStream(js, "EVENTS", NULL, NULL);
    status = js_AddStream(NULL, js, &stream, NULL, NULL);
    if (status != NATS_OK) {
        return fail("stream", status);
    }
    double started = now_s();
    for (long i = 0; i < messages && status == NATS_OK; i++) {
        status = js_PublishAsync(js, "events.a", payload, bytes, NULL);
    }
    (void)jsPubOptions_Init(&wait);
    wait.MaxWait = 60000;
    if (status == NATS_OK) {
        status = js_PublishAsyncComplete(js, &wait);
    }
    double took = now_s() - started;
    if (status != NATS_OK) {
        return fail("publish", status);
    }
    (void)printf("%.0f\n", (double)messages / took);
    (void)js_DeleteStream(js, "EVENTS", NULL, NULL);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    nats_Close();
    free(payload);
    return 0;
}
